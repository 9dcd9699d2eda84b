//! Functions that return rows: all of them at once, in a tuplestore (funcapi.h, `InitMaterializedSRF`).
#![allow(unsafe_code)] // call data

use crate::pg::text;
use pgrx::pg_sys::{self, Datum};

/// The rows that the running function returns.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    form: pg_sys::TupleDesc,
}

impl Rows {
    /// Raises 0A000 where the caller takes no set of rows.
    ///
    /// # Safety
    /// `call` is the call data of the running function, which was declared to return rows.
    pub unsafe fn begin(call: pg_sys::FunctionCallInfo) -> Rows {
        // SAFETY: by the caller's promise.
        unsafe {
            pg_sys::InitMaterializedSRF(call, 0);
            let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            Rows {
                store: (*result).setResult,
                form: (*result).setDesc,
            }
        }
    }

    /// What the rows look like.
    pub fn form(&self) -> pg_sys::TupleDesc {
        self.form
    }

    /// Adds the row that the slot holds.
    ///
    /// # Safety
    /// A slot of the rows' form.
    pub unsafe fn put_slot(&mut self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the caller's promise.
        unsafe { pg_sys::tuplestore_puttupleslot(self.store, slot) };
    }

    /// Adds a row of as many columns as were declared, of their types.
    pub fn put(&mut self, columns: &[Option<Datum>]) {
        let mut values: Vec<Datum> = columns
            .iter()
            .map(|it| it.unwrap_or(Datum::from(0)))
            .collect();
        let mut nulls: Vec<bool> = columns.iter().map(Option::is_none).collect();
        // SAFETY: a descriptor of the function's, whose columns the caller gives.
        unsafe {
            assert_eq!((*self.form).natts as usize, columns.len());
            pg_sys::tuplestore_putvalues(
                self.store,
                self.form,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
}

/// A column of type text; what this database's encoding does not have is written out.
pub fn text_column(value: Option<&str>) -> Option<Datum> {
    value.map(|value| text::text_datum(&text::shown(value)))
}

/// What the running function returns after it has put its rows.
///
/// # Safety
/// `call` is the call data of the running function.
pub unsafe fn done(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: by the caller's promise.
    unsafe { (*call).isnull = true };
    Datum::from(0)
}
