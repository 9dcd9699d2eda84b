//! Stop points: named places between the steps of each sequence whose order matters.
//!
//! Compiled in by the feature `stop_points`, for the crash tests only. The setting
//! `pg_fork.stop_point` names one, and what happens there: `name:crash` kills the process as kill -9
//! does, `name:error` raises an error, `name:wait` waits until the setting is another, `name:nap` sleeps for
//! a while, serving no interrupt; `cut-twice:look` and `cut-twice:halt` have a cut look at its pages again before it
//! is done, the latter stopping everyone where the signal arrives; where an operation on a file is named, `name:fail` makes it fail.

#[cfg(not(feature = "stop_points"))]
pub use off::{at, io, is_set, register};
#[cfg(feature = "stop_points")]
pub use on::{at, io, is_set, register};

#[cfg(not(feature = "stop_points"))]
mod off {
    #[inline(always)]
    pub fn at(_name: &str) {}
    #[inline(always)]
    pub fn io(_name: &str) -> std::io::Result<()> {
        Ok(())
    }
    #[inline(always)]
    pub fn is_set(_name: &str, _action: &str) -> bool {
        false
    }
    pub fn register() {}
}

#[cfg(feature = "stop_points")]
mod on {
    #![allow(unsafe_code)] // kills this process

    use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PgLogLevel, PgSqlErrorCode};
    use std::ffi::CString;

    static STOP_POINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

    pub fn register() {
        GucRegistry::define_string_guc(
            c"pg_fork.stop_point",
            c"Where to stop, and how: name:crash, name:error, name:wait or name:nap.",
            c"",
            &STOP_POINT,
            GucContext::Suset,
            GucFlags::default(),
        );
    }

    fn action(name: &str) -> Option<String> {
        let wanted = STOP_POINT.get()?.into_string().ok()?;
        let (point, action) = wanted.split_once(':')?;
        (point == name).then(|| action.to_string())
    }

    /// Whether this is asked for here.
    pub fn is_set(name: &str, wanted: &str) -> bool {
        action(name).is_some_and(|action| action == wanted)
    }

    /// An I/O error, if one is asked for here.
    pub fn io(name: &str) -> std::io::Result<()> {
        match action(name).as_deref() {
            Some("fail") => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    pub fn at(name: &str) {
        match action(name).as_deref() {
            // SAFETY: this process.
            Some("crash") => unsafe {
                libc::kill(libc::getpid(), libc::SIGKILL);
            },
            Some("error") => pgrx::ereport!(
                PgLogLevel::ERROR,
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("stop point {name}")
            ),
            Some("nap") => std::thread::sleep(std::time::Duration::from_secs(1)),
            Some("wait") => {
                while action(name).is_some() {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    pgrx::check_for_interrupts!();
                }
            }
            _ => {}
        }
    }
}
