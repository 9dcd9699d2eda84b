//! Whether a type is the same in two databases: its values lie on the pages as that database wrote them.
#![allow(unsafe_code)] // rows of catalogs, as C structs

use super::relation::Catalogs;
use pgrx::pg_sys;

const PG_TYPE: (u32, u32) = (1247, 2703);
const PG_ENUM: (u32, u32) = (3501, 3503);
const PG_RANGE: (u32, u32) = (3541, 3542);
const PG_RANGE_BY_MULTIRANGE: u32 = 2228;
/// `FirstNormalObjectId`: below are the server's own.
const FIRST_NORMAL: u32 = 16384;

/// All that the values of a type depend on, as text; `None` if there is no such type.
pub fn fingerprint(catalogs: &Catalogs, kind: u32) -> Option<String> {
    let mut told = String::new();
    let mut waiting = vec![kind];
    let mut done = Vec::new();
    while let Some(kind) = waiting.pop() {
        if kind < FIRST_NORMAL || done.contains(&kind) {
            continue;
        }
        done.push(kind);
        told.push_str(&one(catalogs, kind, &mut waiting)?);
    }
    Some(told)
}

fn one(catalogs: &Catalogs, kind: u32, needs: &mut Vec<u32>) -> Option<String> {
    let mut form = None;
    catalogs.each(PG_TYPE.0, PG_TYPE.1, kind, |row| {
        // SAFETY: pg_type.
        form = Some(*unsafe { row.fixed::<pg_sys::FormData_pg_type>() });
    });
    let form = form?;
    let mut told = format!(
        "{kind} {} {} {} {} {} {} {} {};",
        catalogs.text(&form.typname),
        form.typlen,
        form.typbyval,
        form.typalign,
        form.typtype,
        form.typelem.to_u32(),
        form.typbasetype.to_u32(),
        form.typtypmod,
    );
    needs.extend([form.typelem.to_u32(), form.typbasetype.to_u32()]);
    match form.typtype as u8 {
        b'e' => {
            let mut labels = Vec::new();
            catalogs.each(PG_ENUM.0, PG_ENUM.1, kind, |row| {
                // SAFETY: pg_enum.
                let row = unsafe { row.fixed::<pg_sys::FormData_pg_enum>() };
                labels.push((
                    row.enumsortorder,
                    row.oid.to_u32(),
                    catalogs.text(&row.enumlabel),
                ));
            });
            labels.sort_by(|a, b| a.0.total_cmp(&b.0));
            told.push_str(&format!("{labels:?};"));
        }
        b'c' => {
            let class = catalogs.class(form.typrelid.to_u32())?;
            for column in catalogs.columns(form.typrelid.to_u32(), class.relnatts) {
                told.push_str(&format!(
                    "{} {} {} {} {};",
                    column.name, column.kind, column.modifier, column.len, column.dropped
                ));
                needs.push(column.kind);
            }
        }
        b'm' => catalogs.each(PG_RANGE.0, PG_RANGE_BY_MULTIRANGE, kind, |row| {
            // SAFETY: pg_range: rngtypid.
            let range = unsafe { row.fixed::<[u32; 1]>() }[0];
            told.push_str(&format!("of {range};"));
            needs.push(range);
        }),
        b'r' => catalogs.each(PG_RANGE.0, PG_RANGE.1, kind, |row| {
            // SAFETY: pg_range: rngtypid, rngsubtype.
            let subtype = unsafe { row.fixed::<[u32; 2]>() }[1];
            told.push_str(&format!("of {subtype};"));
            needs.push(subtype);
        }),
        _ => {}
    }
    Some(told)
}

/// Whether the type is the same in both.
pub fn same(here: &Catalogs, there: &Catalogs, kind: u32) -> bool {
    kind < FIRST_NORMAL || {
        let there = fingerprint(there, kind);
        there.is_some() && there == fingerprint(here, kind)
    }
}
