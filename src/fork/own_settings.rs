//! Settings of a database that its forks do not begin with: a superuser gave that one its freedom, not
//! what is made of it.
#![allow(unsafe_code)] // arrays

use pgrx::datum::FromDatum;
use pgrx::pg_sys::{self, Datum};

/// They loosen what a fork may do.
const LOOSE: [&str; 2] = ["pg_fork.isolation", "pg_fork.background_workers"];

/// An array of settings (`name=value`) without those; `None` if nothing else is in it.
///
/// # Safety
/// An array of texts without nulls: `setconfig` of pg_db_role_setting.
pub unsafe fn inherited(settings: Datum) -> Option<Datum> {
    const BY_VALUE: bool = false;
    // SAFETY: by the caller's promise; text is of variable length, and aligned as an integer. Values are
    // taken as bytes: they need not be UTF-8.
    unsafe {
        let array = pg_sys::pg_detoast_datum(settings.cast_mut_ptr());
        let (mut values, mut count) = (std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array.cast(),
            pg_sys::TEXTOID,
            -1,
            BY_VALUE,
            pg_sys::TYPALIGN_INT as i8,
            &mut values,
            std::ptr::null_mut(),
            &mut count,
        );
        let all = std::slice::from_raw_parts(values, count as usize);
        let stays = |setting: &Datum| {
            let text = <&[u8]>::from_datum(*setting, false);
            !text.is_some_and(is_loose)
        };
        let mut kept: Vec<Datum> = all.iter().copied().filter(stays).collect();
        if kept.is_empty() {
            return None;
        }
        let array = pg_sys::construct_array(
            kept.as_mut_ptr(),
            kept.len() as i32,
            pg_sys::TEXTOID,
            -1,
            BY_VALUE,
            pg_sys::TYPALIGN_INT as i8,
        );
        Some(Datum::from(array))
    }
}

fn is_loose(setting: &[u8]) -> bool {
    let name = setting.split(|byte| *byte == b'=').next();
    name.is_some_and(|name| {
        LOOSE
            .iter()
            .any(|loose| loose.as_bytes().eq_ignore_ascii_case(name))
    })
}
