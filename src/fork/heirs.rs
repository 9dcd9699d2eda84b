//! What the owners of the databases that a fork came from find in it: the rights that they had there.
//!
//! An application owns its database, and with it the schema public (as a member of `pg_database_owner`). An
//! administrator who forks it owns the fork, so the application could not migrate there. What an owner may do to
//! the database itself is in its row ([`crate::fork::rows`]). For schemas of `pg_database_owner`, access lists
//! inside of the fork have to say it, and making a fork writes to none of its blocks: it notes in the fork's label
//! to whom USAGE and CREATE are owed, and the first session in the fork gives them, before its first statement.
//! The note goes in the same transaction, so what the fork's owner revokes then stays revoked.
#![allow(unsafe_code)] // catalogs, and transactions between statements

use crate::fork::catalog::Source;
use crate::fork::rows;
use crate::pg::text;
use crate::pg::tuple::Catalog;
use crate::reader::relation::Catalogs;
use crate::shmem::registry::{self, ForkState};
use pgrx::pg_sys::{self, AclMode, Datum, Oid};
use pgrx::prelude::*;
use std::ffi::{c_char, CStr};

/// pg_namespace, and its index on oid.
const SCHEMAS: u32 = 2615;
const SCHEMAS_BY_OID: u32 = 2685;

/// Nothing is owed: what a slot of the registry says of a fork. 0 is for not known yet.
pub const SETTLED: u32 = 1;

const OWED: &str = "fork; owed to roles";
const GIVEN: &str = "fork; given to roles";
const SCHEMAS_OF: &str = " on schemas";

/// What a fork's label says. The roles are those of databases' owners.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    Nothing,
    Owed(Vec<u32>),
    Given { roles: Vec<u32>, schemas: Vec<u32> },
}

impl Note {
    pub fn new(owed: Vec<u32>) -> Self {
        match owed.is_empty() {
            true => Note::Nothing,
            false => Note::Owed(owed),
        }
    }

    /// Of a label that fork_create or [`enter`] wrote; nobody else can.
    pub fn parse(label: &str) -> Self {
        let list = |text: &str| {
            let numbers = text.split_whitespace();
            numbers.filter_map(|n| n.parse().ok()).collect::<Vec<_>>()
        };
        if let Some(roles) = label.strip_prefix(OWED) {
            return Note::Owed(list(roles));
        }
        let given = label.strip_prefix(GIVEN);
        match given.and_then(|given| given.split_once(SCHEMAS_OF)) {
            Some((roles, schemas)) => Note::Given {
                roles: list(roles),
                schemas: list(schemas),
            },
            None => Note::Nothing,
        }
    }

    pub fn label(&self) -> String {
        let list = |numbers: &[u32]| {
            let numbers = numbers.iter().map(|number| format!(" {number}"));
            numbers.collect::<String>()
        };
        match self {
            Note::Nothing => "fork".into(),
            Note::Owed(roles) => format!("{OWED}{}", list(roles)),
            Note::Given { roles, schemas } => {
                format!("{GIVEN}{}{SCHEMAS_OF}{}", list(roles), list(schemas))
            }
        }
    }
}

/// The roles that a new fork of `source` owes something, whose owner is the caller.
pub fn of_new(source: &Source) -> Vec<u32> {
    let mut heirs = match registry::fork(source.oid) {
        // Who has been given it there has it in what the fork inherits.
        Some(fork) if fork.heirs != SETTLED => match rows::note(source.oid) {
            Note::Owed(heirs) => heirs,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    heirs.push(source.owner);
    heirs.dedup();
    // SAFETY: look-ups.
    heirs.retain(|role| unsafe {
        *role != pg_sys::GetUserId().to_u32() && !pg_sys::superuser_arg((*role).into())
    });
    heirs
}

/// Adds to an access list what the role `grantee` is owed, by the owner.
///
/// # Safety
/// A detoasted access list, of an object of `owner`'s.
pub unsafe fn granted(
    acl: *const pg_sys::Acl,
    owner: Oid,
    grantee: u32,
    rights: AclMode,
) -> *mut pg_sys::Acl {
    let item = pg_sys::AclItem {
        ai_grantee: grantee.into(),
        ai_grantor: owner,
        ai_privs: rights,
    };
    // SAFETY: by the caller's promise.
    unsafe {
        pg_sys::aclupdate(
            acl,
            &item,
            pg_sys::ACL_MODECHG_ADD as i32,
            owner,
            pg_sys::DropBehavior::DROP_RESTRICT,
        )
    }
}

/// The roles in an access list, for pg_shdepend.
///
/// # Safety
/// A detoasted access list, or null.
unsafe fn members(acl: *const pg_sys::Acl) -> (i32, *mut Oid) {
    let mut members = std::ptr::null_mut();
    // SAFETY: by the caller's promise.
    let count = match acl.is_null() {
        true => 0,
        false => unsafe { pg_sys::aclmembers(acl, &mut members) },
    };
    (count, members)
}

/// Gives the roles what the owner has in each schema of `pg_database_owner`. In the fork; no hook and no event
/// trigger is asked, for it is no statement of anyone's. Returns the schemas.
fn give(heirs: &[u32]) -> Vec<u32> {
    let owner = Oid::from(pg_sys::ROLE_PG_DATABASE_OWNER);
    let rights = AclMode::from(pg_sys::ACL_USAGE | pg_sys::ACL_CREATE);
    let schemas = Catalog::open(SCHEMAS);
    let mut given = Vec::new();
    schemas.all(SCHEMAS_BY_OID, |row| {
        // SAFETY: a row of pg_namespace; what is allocated lives as long as the transaction.
        unsafe {
            let form = row.fixed::<pg_sys::FormData_pg_namespace>();
            if form.nspowner != owner {
                return;
            }
            let known = row.column(pg_sys::Anum_pg_namespace_nspacl as i32);
            let known = known.map_or(std::ptr::null_mut(), |acl| {
                pg_sys::pg_detoast_datum_copy(acl.cast_mut_ptr()).cast::<pg_sys::Acl>()
            });
            let before = match known.is_null() {
                true => pg_sys::acldefault(pg_sys::ObjectType::OBJECT_SCHEMA, owner),
                false => known,
            };
            let all = pg_sys::AclMaskHow::ACLMASK_ALL;
            let has = pg_sys::aclmask(before, owner, owner, rights, all);
            if has == 0 {
                return;
            }
            let mut after = before;
            for heir in heirs {
                after = granted(after, owner, *heir, has);
            }
            let column = pg_sys::Anum_pg_namespace_nspacl as usize;
            schemas.update_like(row, &[(column, Some(Datum::from(after)))]);
            let (old_count, old) = members(known);
            let (new_count, new) = members(after);
            let (class, schema) = (SCHEMAS.into(), form.oid);
            pg_sys::updateAclDependencies(class, schema, 0, owner, old_count, old, new_count, new);
            given.push(form.oid.to_u32());
        }
    });
    given
}

/// So that of the first sessions in a fork one gives, and the others find it done. Until the transaction's end.
fn lock(fork: u32) {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: fork,
        locktag_field2: 0x7067_6668,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: a whole tag; who held it may have changed the label.
    unsafe {
        pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false);
        pg_sys::AcceptInvalidationMessages();
    }
}

fn settle(fork: u32) {
    if matches!(rows::note(fork), Note::Owed(_)) {
        lock(fork);
        if let Note::Owed(mut heirs) = rows::note(fork) {
            // SAFETY: a look-up. Of a role that is gone nobody asks anything.
            heirs.retain(|role| unsafe {
                let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
                let none = Datum::from(0usize);
                pg_sys::SearchSysCacheExists(cache, Oid::from(*role).into(), none, none, none)
            });
            let schemas = give(&heirs);
            let roles = heirs;
            rows::set_note(fork, &Note::Given { roles, schemas });
        }
    }
}

/// Lets the commit not wait for the disk: if a crash of the server undoes it, the next session does it again.
struct Lazily(i32);

impl Lazily {
    fn new() -> Self {
        // SAFETY: a variable of this process.
        unsafe {
            let last = pg_sys::synchronous_commit;
            pg_sys::synchronous_commit = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32;
            Lazily(last)
        }
    }
}

impl Drop for Lazily {
    fn drop(&mut self) {
        // SAFETY: what it was.
        unsafe { pg_sys::synchronous_commit = self.0 };
    }
}

/// A session has come to this database, by a login or by attaching, and waits for its first statement there. No
/// transaction is open. Raises no error: a session that cannot give works all the same.
pub fn enter() {
    // SAFETY: a plain variable of this process.
    let here = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let fork = registry::fork(here);
    if fork.is_none_or(|fork| fork.heirs == SETTLED || fork.state != ForkState::Ready) {
        return;
    }
    // SAFETY: as between two statements (postgres.c).
    let context = unsafe { pg_sys::CurrentMemoryContext };
    PgTryBuilder::new(|| {
        let _lazily = Lazily::new();
        // SAFETY: no transaction is open.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            settle(here);
            pg_sys::CommitTransactionCommand();
        }
        registry::touch(|table| table.update(here, |slot| slot.heirs = SETTLED));
    })
    .catch_others(|error| {
        use pgrx::pg_sys::panic::CaughtError::*;
        let (PostgresError(report) | ErrorReport(report) | RustPanic { ereport: report, .. }) = &error;
        let message = report.message().to_string();
        // SAFETY: an error of the transaction above.
        unsafe { pg_sys::AbortCurrentTransaction() };
        pgrx::log!(
            "pg_fork: the owners of what the fork \"{}\" was forked from did not get their rights: {message}",
            fork_name(here)
        );
    })
    .execute();
    // SAFETY: the context of before.
    unsafe { pg_sys::MemoryContextSwitchTo(context) };
}

fn fork_name(fork: u32) -> String {
    registry::fork(fork).map_or(String::new(), |fork| fork.name())
}

/// The rights that were given in the fork, by the names that fork_diff_schema has for them. In a transaction.
pub fn given(fork: u32) -> Vec<String> {
    let Note::Given { roles, schemas } = rows::note(fork) else {
        return Vec::new();
    };
    let catalogs = Catalogs::open(fork);
    let mut names = Vec::new();
    for schema in schemas {
        catalogs.each(SCHEMAS, SCHEMAS_BY_OID, schema, |row| {
            // SAFETY: a row of pg_namespace.
            let form = unsafe { row.fixed::<pg_sys::FormData_pg_namespace>() };
            if form.oid.to_u32() == schema {
                // SAFETY: a name that outlives the call.
                names.push(unsafe { quoted(form.nspname.data.as_ptr()) });
            }
        });
    }
    // SAFETY: palloc'd, or null.
    let roles = roles.into_iter().filter_map(|role| unsafe {
        let name = pg_sys::GetUserNameFromId(role.into(), true);
        (!name.is_null()).then(|| quoted(name))
    });
    let rights = |role: String| {
        let on = |schema| format!("rights of {role} on schema {schema}");
        names.iter().map(on).collect::<Vec<_>>()
    };
    roles.flat_map(rights).collect()
}

/// A name, in double quotes where it needs them.
///
/// # Safety
/// A C string.
unsafe fn quoted(name: *const c_char) -> String {
    // SAFETY: by the caller's promise; the result is that string or palloc'd.
    unsafe { text::server(CStr::from_ptr(pg_sys::quote_identifier(name)).to_bytes()) }
}

/// Whether a row of fork_diff_schema is what pg_fork itself has done to the fork.
pub fn is_gift(given: &[String], object: &str, [before, after]: &[Option<String>; 2]) -> bool {
    let all = ["GRANT CREATE, USAGE", "GRANT CREATE", "GRANT USAGE"];
    let granted = after.as_deref().is_some_and(|after| all.contains(&after));
    before.is_none() && granted && given.iter().any(|right| right == object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let given = |roles: &[u32], schemas: &[u32]| Note::Given {
            roles: roles.to_vec(),
            schemas: schemas.to_vec(),
        };
        for note in [
            Note::Nothing,
            Note::Owed(vec![16401]),
            Note::Owed(vec![1, 4_294_967_295]),
            given(&[], &[]),
            given(&[16401, 16402], &[2200]),
        ] {
            assert_eq!(Note::parse(&note.label()), note);
        }
        assert_eq!(Note::parse("something else"), Note::Nothing);
        assert_eq!(Note::new(vec![]), Note::Nothing);
    }
}
