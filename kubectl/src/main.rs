//! The `kubectl` binary.

fn main() {
    // One thread: a command waits for the server and for nothing else, and starts the sooner for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(kubectl::run(std::env::args_os()));
            // Connections that are still being closed are not waited for.
            runtime.shutdown_background();
            code
        }
        Err(e) => {
            kubectl::output::warn(format!("error: cannot start: {e}"));
            1
        }
    };
    std::process::exit(code);
}
