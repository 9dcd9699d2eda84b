//! What a mounted table shows: kept in its security label, which goes with the table.
#![allow(unsafe_code)] // calls into seclabel.c

use crate::reader::At;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

const PROVIDER: &CStr = c"pg_fork";
const PG_CLASS: u32 = 1259;

/// What a mounted table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The fork, or the source.
    pub db: u32,
    pub at: At,
    pub relation: u32,
}

impl Label {
    fn text(&self) -> String {
        let at = match self.at {
            At::Now => "now",
            At::Cut => "cut",
        };
        format!("{} {at} {}", self.db, self.relation)
    }

    fn parse(text: &str) -> Option<Label> {
        let mut words = text.split(' ');
        let db = words.next()?.parse().ok()?;
        let at = match words.next()? {
            "now" => At::Now,
            "cut" => At::Cut,
            _ => return None,
        };
        let relation = words.next()?.parse().ok()?;
        Some(Label { db, at, relation })
    }
}

fn address(table: u32) -> pg_sys::ObjectAddress {
    pg_sys::ObjectAddress {
        classId: PG_CLASS.into(),
        objectId: table.into(),
        objectSubId: 0,
    }
}

/// The label of a table, if it has one.
pub fn of(table: u32) -> Option<Label> {
    // SAFETY: a palloc'd string, or null.
    unsafe {
        let text = pg_sys::GetSecurityLabel(&address(table), PROVIDER.as_ptr());
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text).to_str().ok().and_then(Label::parse)
    }
}

/// Labels a table.
pub fn set(table: u32, label: &Label) {
    let text = CString::new(label.text()).unwrap_or_default();
    // SAFETY: C strings that outlive the call.
    unsafe { pg_sys::SetSecurityLabel(&address(table), PROVIDER.as_ptr(), text.as_ptr()) };
}
