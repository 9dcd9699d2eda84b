//! Named points between the steps of a switch at which a test raises an error. Nothing unless the
//! feature `stop_points` is on.

#[cfg(feature = "stop_points")]
mod armed {
    use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
    use pgrx::prelude::*;
    use std::ffi::CString;

    static FAULT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

    pub fn register() {
        GucRegistry::define_string_guc(
            c"pg_fork.attach_fault",
            c"The step of a switch at which an error is raised.",
            c"For tests.",
            &FAULT,
            GucContext::Userset,
            GucFlags::default(),
        );
    }

    pub fn at(step: &str) {
        if FAULT
            .get()
            .is_some_and(|at| at.as_bytes() == step.as_bytes())
        {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("fault at {step}")
            );
        }
    }
}
#[cfg(feature = "stop_points")]
pub use armed::{at, register};

#[cfg(not(feature = "stop_points"))]
pub fn register() {}

#[cfg(not(feature = "stop_points"))]
#[inline]
pub fn at(_step: &str) {}
