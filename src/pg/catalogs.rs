//! Catalogs of PostgreSQL 15 that the bindings have no names for.

use pgrx::pg_sys::Oid;

/// pg_depend, and its indexes by what depends and by what that depends on.
pub const DEPEND: u32 = 2608;
pub const DEPEND_BY_DEPENDER: u32 = 2673;
pub const DEPEND_BY_REFERENCE: u32 = 2674;
/// Its columns classid, objid, refclassid and refobjid.
pub const DEPEND_CLASS: i16 = 1;
pub const DEPEND_OBJECT: i16 = 2;
pub const DEPEND_ON_CLASS: i16 = 4;
pub const DEPEND_ON_OBJECT: i16 = 5;

/// `FormData_pg_depend` (pg_depend.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Depend {
    pub class: Oid,
    pub object: Oid,
    pub part: i32,
    pub on_class: Oid,
    pub on_object: Oid,
    pub on_part: i32,
    pub kind: i8,
}

/// pg_rewrite, and its index on oid.
pub const REWRITE: u32 = 2618;
pub const REWRITE_BY_OID: u32 = 2692;
/// Its index on ev_class and rulename.
pub const REWRITE_BY_RELATION: u32 = 2693;
/// Its column ev_class.
pub const REWRITE_RELATION: i16 = 3;

/// The beginning of `FormData_pg_rewrite` (pg_rewrite.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Rewrite {
    pub oid: Oid,
    pub name: [u8; 64],
    pub relation: Oid,
}

/// pg_inherits, and its index by the relation that inherits.
pub const INHERITS: u32 = 2611;
pub const INHERITS_BY_CHILD: u32 = 2680;

/// `FormData_pg_inherits` (pg_inherits.h).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Inherits {
    pub child: Oid,
    pub parent: Oid,
    pub number: i32,
    pub detaching: bool,
}
