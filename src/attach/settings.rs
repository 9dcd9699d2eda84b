//! Settings of a database, and of a role in it: those of the new one are applied, as at a login, and
//! those of the old one undone. What the session itself has set stays (guc.c: its source is higher).
#![allow(unsafe_code)] // the entries of guc.c

use crate::attach::{request, trust};
use pgrx::datum::FromDatum;
use pgrx::pg_sys;
use pgrx::pg_sys::{GucContext, GucSource};
use std::cell::RefCell;
use std::ffi::{CStr, CString};

/// A row of pg_db_role_setting says this, for the database, the role, or both.
#[derive(Clone, Debug)]
pub struct Setting {
    source: GucSource::Type,
    name: CString,
    value: CString,
}

/// What the parameters that are not at their built-in defaults were before a login applied anything.
#[derive(Default)]
struct Base {
    values: Vec<(GucSource::Type, CString, CString)>,
    /// When the configuration files had been read last.
    read: i64,
}

thread_local! {
    static BASE: RefCell<Base> = RefCell::default();
}

/// All parameters.
fn parameters() -> impl Iterator<Item = *mut pg_sys::config_generic> {
    // SAFETY: guc.c's array of this many entries; it may move when a parameter is defined, not here.
    let (first, count) = unsafe {
        (
            pg_sys::get_guc_variables(),
            pg_sys::GetNumConfigOptions() as usize,
        )
    };
    // SAFETY: as above.
    (0..count).map(move |n| unsafe { *first.add(n) })
}

/// Whether it is one that a database's or a role's settings can change in a running session.
unsafe fn settable(entry: *mut pg_sys::config_generic) -> bool {
    // SAFETY: an entry of `parameters`.
    matches!(
        unsafe { (*entry).context },
        GucContext::PGC_USERSET | GucContext::PGC_SUSET
    )
}

/// The source is a row of pg_db_role_setting.
fn from_catalog(source: GucSource::Type) -> bool {
    (GucSource::PGC_S_GLOBAL..=GucSource::PGC_S_DATABASE_USER).contains(&source)
}

/// Notes what comes from the configuration files and the command line. At each login, before the
/// settings of the database and the role are applied; a few microseconds.
pub fn note_base() {
    let mut values = Vec::new();
    for entry in parameters() {
        // SAFETY: an entry; the value is a static or palloc'd string.
        unsafe {
            let source = (*entry).reset_source;
            let plain =
                (GucSource::PGC_S_DYNAMIC_DEFAULT..=GucSource::PGC_S_ARGV).contains(&source);
            // A value that a client has set already is not the base.
            if !plain || (*entry).source > source || !settable(entry) {
                continue;
            }
            let value = pg_sys::GetConfigOption((*entry).name, true, false);
            if !value.is_null() {
                values.push((
                    source,
                    CStr::from_ptr((*entry).name).to_owned(),
                    CStr::from_ptr(value).to_owned(),
                ));
            }
        }
    }
    // SAFETY: a plain variable.
    let read = unsafe { pg_sys::PgReloadTime };
    BASE.with(|base| *base.borrow_mut() = Base { values, read });
}

/// The settings that a session of this role takes on in this database: those that a login applies. But of the
/// database's own those only that no stranger can have set ([`trust`]), above those of the session's home.
/// In a transaction.
///
/// A role's settings in a database need no such care: the role, and who may alter it, can set them.
pub fn read(database: u32, role: u32) -> Vec<Setting> {
    let strangers = trust::strangers(database);
    let own = (database, 0, GucSource::PGC_S_DATABASE);
    let mut wanted = vec![
        (database, role, GucSource::PGC_S_DATABASE_USER),
        (0, role, GucSource::PGC_S_USER),
        (0, 0, GucSource::PGC_S_GLOBAL),
    ];
    if strangers.is_empty() {
        wanted.push(own);
        return rows(&wanted);
    }
    wanted.push((request::home(), 0, GucSource::PGC_S_DATABASE));
    let mut settings = rows(&wanted);
    let mut theirs = rows(&[own]);
    theirs.retain(|setting| {
        parameters().any(|entry| {
            // SAFETY: entries of `parameters`.
            unsafe {
                trust::is_named(entry, &setting.name) && trust::out_of_reach(entry, &strangers)
            }
        })
    });
    // Of two of one source the last counts.
    settings.append(&mut theirs);
    settings
}

/// The settings in these rows of pg_db_role_setting.
fn rows(wanted: &[(u32, u32, GucSource::Type)]) -> Vec<Setting> {
    let mut settings = Vec::new();
    // SAFETY: scans of pg_db_role_setting by its index on setdatabase, setrole (2965).
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(pg_sys::Oid::from(2964), lock);
        for &(database, role, source) in wanted {
            let mut keys = [pg_sys::ScanKeyData::default(); 2];
            for (n, value) in [database, role].into_iter().enumerate() {
                pg_sys::ScanKeyInit(
                    &mut keys[n],
                    n as i16 + 1,
                    pg_sys::BTEqualStrategyNumber as u16,
                    pg_sys::Oid::from(184), // oideq
                    pg_sys::Oid::from(value).into(),
                );
            }
            let index = pg_sys::Oid::from(2965);
            let none = std::ptr::null_mut();
            let scan =
                pg_sys::systable_beginscan(relation, index, true, none, 2, keys.as_mut_ptr());
            let tuple = pg_sys::systable_getnext(scan);
            if !tuple.is_null() {
                let mut null = false;
                let datum = pg_sys::heap_getattr(tuple, 3, (*relation).rd_att, &mut null);
                let list = Vec::<Option<String>>::from_datum(datum, null).unwrap_or_default();
                settings.extend(list.into_iter().flatten().filter_map(|s| parse(&s, source)));
            }
            pg_sys::systable_endscan(scan);
        }
        pg_sys::table_close(relation, lock);
    }
    settings
}

/// `name=value` (guc.c, `ProcessGUCArray`).
fn parse(setting: &str, source: GucSource::Type) -> Option<Setting> {
    let (name, value) = setting.split_once('=')?;
    // The client counts on the encoding that it speaks.
    if name.eq_ignore_ascii_case("client_encoding") {
        return None;
    }
    Some(Setting {
        source,
        name: CString::new(name).ok()?,
        value: CString::new(value).ok()?,
    })
}

unsafe fn set(name: &CStr, value: Option<&CStr>, source: GucSource::Type) {
    // SAFETY: C strings. Level WARNING: a value that is not valid any more does not keep anyone out.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.map_or(std::ptr::null(), CStr::as_ptr),
            GucContext::PGC_SUSET,
            source,
            pg_sys::GucAction::GUC_ACTION_SET,
            true,
            pg_sys::WARNING as i32,
            false,
        );
    }
}

/// Undoes what was applied from the catalog, and applies `settings`. No transaction is open.
pub fn apply(settings: &[Setting]) {
    let applied: Vec<_> = parameters()
        // SAFETY: entries of `parameters`.
        .filter(|entry| unsafe { from_catalog((**entry).reset_source) && settable(*entry) })
        .collect();
    if !applied.is_empty() {
        undo(&applied);
    }
    if settings.is_empty() {
        return;
    }
    // SAFETY: some parameters look at catalogs, so in a transaction, as at a login. None of these
    // changes is undone at its end: they are defaults (guc.c, `set_config_option`).
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        for setting in settings {
            set(&setting.name, Some(&setting.value), setting.source);
        }
        pg_sys::CommitTransactionCommand();
        pg_sys::MemoryContextSwitchTo(context);
    }
}

/// Gives the parameters the values that they had before the login's settings.
fn undo(applied: &[*mut pg_sys::config_generic]) {
    for &entry in applied {
        // SAFETY: an entry of guc.c. Once its source is lowered, a default of a lower source is
        // taken; a value of the session's own has a higher source and stays.
        unsafe {
            (*entry).reset_source = GucSource::PGC_S_DEFAULT;
            if from_catalog((*entry).source) {
                (*entry).source = GucSource::PGC_S_DEFAULT;
            }
            let name = CStr::from_ptr((*entry).name).to_owned();
            let base = BASE.with(|base| {
                let base = base.borrow();
                let found = base.values.iter().find(|(_, known, _)| *known == name);
                found.map(|(source, _, value)| (*source, value.clone()))
            });
            match base {
                Some((source, value)) => set(&name, Some(&value), source),
                None => set(&name, None, GucSource::PGC_S_DEFAULT),
            }
        }
    }
    // SAFETY: a plain variable; and what a backend does between statements when it is told that the
    // files have changed: since the base was noted they may have.
    unsafe {
        if BASE.with(|base| base.borrow().read) != pg_sys::PgReloadTime {
            pg_sys::ProcessConfigFile(GucContext::PGC_SIGHUP);
            note_base();
        }
    }
}
