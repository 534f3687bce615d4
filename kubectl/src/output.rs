//! What is printed and how: one file per format.

pub mod custom_columns;
pub mod human;
pub mod json;
pub mod printer;
pub mod table;
pub mod tabwriter;
pub mod yaml;

use std::io::Write;

use crate::error::{Error, Result};

/// Writes to standard output. A reader that has gone away ends the program as a broken pipe does.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Error::Exit(141)),
        Err(e) => Err(Error::message(format!("write to standard output: {e}"))),
    }
}

/// Writes a line to standard output.
pub fn println(text: impl AsRef<str>) -> Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// Writes a line to standard error, which may be closed.
pub fn warn(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}
