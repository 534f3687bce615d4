//! Rules of the kinds in `batch/v1`.

pub mod cron;
pub mod cron_job;
pub mod job;
