//! A relation of another database: found in that database's own catalogs, by their pages.
#![allow(unsafe_code)] // rows of catalogs, as C structs

use super::encoding::Conversion;
use super::{damaged, database, default_tablespace, horizon, page::Pages, visible};
use crate::fork::files;
use crate::pg::text;
use crate::pg::tuple::Row;
use pg_fork_core::pages::{btree, heap, Damaged};
use pg_fork_core::types::{Page, PAGE_SIZE};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;

const PG_CLASS: u32 = 1259;
const PG_CLASS_BY_OID: u32 = 2662;
const PG_ATTRIBUTE: u32 = 1249;
const PG_ATTRIBUTE_BY_NUMBER: u32 = 2659;
const PG_INDEX: u32 = 2610;
const PG_INDEX_BY_TABLE: u32 = 2678;

/// A column, as the other database has it.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub kind: u32,
    pub modifier: i32,
    pub len: i16,
    pub align: i8,
    pub by_value: bool,
    pub dropped: bool,
}

impl Column {
    pub fn of(form: &pg_sys::FormData_pg_attribute, encoding: i32) -> Self {
        Column {
            name: name(&form.attname, encoding),
            kind: form.atttypid.to_u32(),
            modifier: form.atttypmod,
            len: form.attlen,
            align: form.attalign,
            by_value: form.attbyval,
            dropped: form.attisdropped,
        }
    }
}

/// The beginning of `FormData_pg_index`.
#[derive(Clone, Copy)]
#[repr(C)]
struct IndexRow {
    index: u32,
    table: u32,
    /// indnatts, indnkeyatts, then indisunique to indisclustered
    between: [u8; 10],
    valid: u8,
    after: u8,
}

/// Where a table's TOAST values are.
#[derive(Clone, Debug)]
pub struct Toast {
    pub oid: u32,
    pub pages: Pages,
    pub index: Pages,
}

/// A table to read from.
#[derive(Clone, Debug)]
pub struct Relation {
    /// As the storage manager knows it: a base's own number.
    pub db: u32,
    pub oid: u32,
    pub name: String,
    pub pages: Pages,
    pub relpages: i32,
    pub reltuples: f32,
    pub columns: Vec<Column>,
    /// Of what is text in its rows.
    pub encoding: i32,
    /// What has to be done with the columns' values here: nothing if it is empty.
    pub conversions: Vec<Conversion>,
    pub toast: Option<Toast>,
}

/// The map of the catalogs that pg_class cannot tell of itself (relmapper.c, `RelMapFile`).
fn mapped(db: u32) -> Vec<(u32, u32)> {
    let path = files::db_dir(db, default_tablespace(db)).join("pg_filenode.map");
    // SAFETY: who writes the file holds this lock (relmapper.c, `write_relmap_file`).
    let bytes = unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(25)).lock; // RelationMappingLock
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let bytes = std::fs::read(&path);
        pg_sys::LWLockRelease(lock);
        bytes
    };
    let word = |n: usize| -> Option<u32> {
        let bytes = bytes.as_ref().ok()?.get(4 * n..4 * n + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let count = word(1).filter(|count| word(0) == Some(0x0059_2717) && *count <= 62);
    let Some(count) = count else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!("could not read the relation map of the database with OID {db}")
        );
    };
    let pairs = (0..count as usize).map(|n| (word(2 + 2 * n), word(3 + 2 * n)));
    pairs.filter_map(|(a, b)| Some((a?, b?))).collect()
}

/// The catalogs of a database, as far as a reader needs them.
pub struct Catalogs {
    pub db: u32,
    /// Of what is text in the database.
    pub encoding: i32,
    tablespace: u32,
    snapshot: pg_sys::Snapshot,
    owner: pg_sys::ResourceOwner,
    /// Those that were looked at: each is locked, so that nobody moves or cuts it off meanwhile.
    found: RefCell<Vec<(u32, Pages)>>,
}

impl Drop for Catalogs {
    fn drop(&mut self) {
        // An error's end of the (sub)transaction lets go of both.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: taken by us under that resource owner.
        unsafe {
            pg_sys::UnregisterSnapshotFromOwner(self.snapshot, self.owner);
            let last = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = self.owner;
            for (oid, _) in self.found.take() {
                let mode = pg_sys::AccessShareLock as i32;
                pg_sys::LockRelease(&tag(self.db, oid), mode, false);
            }
            pg_sys::CurrentResourceOwner = last;
        }
    }
}

impl Catalogs {
    /// The catalogs as they are now.
    pub fn open(db: u32) -> Self {
        horizon::protect();
        // SAFETY: a snapshot of this moment, kept from being vacuumed past until it is dropped.
        let (snapshot, owner) = unsafe {
            let snapshot = pg_sys::RegisterSnapshot(horizon::new_snapshot());
            (snapshot, pg_sys::CurrentResourceOwner)
        };
        let server = text::server_encoding();
        Catalogs {
            db,
            encoding: database::of(db).map_or(server, |it| it.encoding),
            tablespace: default_tablespace(db),
            snapshot,
            owner,
            found: RefCell::default(),
        }
    }

    /// A name in one of the catalogs.
    pub fn text(&self, bytes: &pg_sys::NameData) -> String {
        name(bytes, self.encoding)
    }

    fn pages(&self, spc: u32, rel: u32, permanent: bool) -> Pages {
        let spc = if spc == 0 { self.tablespace } else { spc };
        let node = pg_sys::RelFileNode {
            spcNode: spc.into(),
            dbNode: self.db.into(),
            relNode: rel.into(),
        };
        Pages { node, permanent }
    }

    /// A catalog or an index of one.
    fn catalog(&self, oid: u32) -> Pages {
        let known = self.found.borrow().iter().find(|it| it.0 == oid).copied();
        if let Some((_, pages)) = known {
            return pages;
        }
        // Where it is counts from when it is locked.
        lock(self.db, oid);
        let map = mapped(self.db);
        let pages = match map.iter().find(|(mapped, _)| *mapped == oid) {
            Some((_, rel)) => self.pages(0, *rel, true),
            None => match self.class_now(oid) {
                Some(class) => self.pages_of(&class),
                None => damaged(self.db, oid, Damaged("a catalog is not in pg_class")),
            },
        };
        self.found.borrow_mut().push((oid, pages));
        pages
    }

    /// A file of a relation, as pg_class tells it.
    pub fn file(&self, (spc, rel): (u32, u32)) -> Pages {
        self.pages(spc, rel, true)
    }

    fn pages_of(&self, class: &pg_sys::FormData_pg_class) -> Pages {
        let permanent = class.relpersistence as u8 == b'p';
        let rel = match class.relfilenode.to_u32() {
            0 => mapped(self.db)
                .iter()
                .find(|(mapped, _)| *mapped == class.oid.to_u32())
                .map_or(0, |(_, rel)| *rel),
            rel => rel,
        };
        self.pages(class.reltablespace.to_u32(), rel, permanent)
    }

    /// Calls `what` with each row of a catalog.
    pub fn all(&self, table: u32, mut what: impl FnMut(&Row)) {
        let pages = self.catalog(table);
        let mut page = Box::new([0; PAGE_SIZE]);
        let mut seen = Vec::new();
        let form = Form::open(table);
        for block in 0..pages.count() {
            pgrx::check_for_interrupts!();
            pages.read(block, std::ptr::null_mut(), &mut page);
            if let Err(error) = visible::on_page(&page, self.snapshot, &mut seen) {
                damaged(self.db, table, error);
            }
            for tuple in &seen {
                form.show(&page, tuple, &mut what);
            }
        }
    }

    /// Calls `what` with each row of a catalog whose first indexed column is `key`.
    pub fn each(&self, table: u32, index: u32, key: u32, mut what: impl FnMut(&Row)) {
        let (pages, index) = (self.catalog(table), self.catalog(index));
        let form = Form::open(table);
        let sees = |tuple: &heap::Tuple, page: &Page| visible::sees(tuple, page, self.snapshot);
        rows_by_number(self.db, &pages, &index, key, sees, |page, tuple| {
            form.show(page, tuple, &mut what);
        });
    }

    /// The same, as the C struct of the columns of fixed length.
    fn rows<T: Copy>(
        &self,
        (table, index): (u32, u32),
        key: u32,
        snapshot: pg_sys::Snapshot,
        mut what: impl FnMut(&T),
    ) {
        let (pages, index) = (self.catalog(table), self.catalog(index));
        let sees = |tuple: &heap::Tuple, page: &Page| visible::sees(tuple, page, snapshot);
        rows_by_number(self.db, &pages, &index, key, sees, |page, tuple| {
            let row = tuple.data(page);
            if row.len() >= std::mem::size_of::<T>() - std::mem::align_of::<T>() {
                let mut fixed = std::mem::MaybeUninit::<T>::zeroed();
                let len = row.len().min(std::mem::size_of::<T>());
                // SAFETY: the catalog's columns of fixed length, which are never null, lie at the
                // beginning of each row as the struct has them (genbki.h).
                let fixed = unsafe {
                    std::ptr::copy_nonoverlapping(
                        row.as_ptr(),
                        fixed.as_mut_ptr().cast::<u8>(),
                        len,
                    );
                    fixed.assume_init()
                };
                what(&fixed);
            }
        });
    }

    /// A relation's row in pg_class.
    pub fn class(&self, oid: u32) -> Option<pg_sys::FormData_pg_class> {
        self.class_seen(oid, self.snapshot)
    }

    /// The row as it is now, for a relation that was locked since.
    fn class_now(&self, oid: u32) -> Option<pg_sys::FormData_pg_class> {
        // Asked for first: a look-up on the way may take a snapshot of its own.
        self.catalog(PG_CLASS);
        self.catalog(PG_CLASS_BY_OID);
        self.class_seen(oid, horizon::new_snapshot())
    }

    fn class_seen(&self, oid: u32, seen: pg_sys::Snapshot) -> Option<pg_sys::FormData_pg_class> {
        let mut found = None;
        let place = (PG_CLASS, PG_CLASS_BY_OID);
        self.rows::<pg_sys::FormData_pg_class>(place, oid, seen, |row| {
            if row.oid.to_u32() == oid {
                found = Some(*row);
            }
        });
        found
    }

    /// The columns of a relation, dropped ones too.
    pub fn columns(&self, relation: u32, count: i16) -> Vec<Column> {
        let mut columns = vec![None; count.max(0) as usize];
        let place = (PG_ATTRIBUTE, PG_ATTRIBUTE_BY_NUMBER);
        self.rows::<pg_sys::FormData_pg_attribute>(place, relation, self.snapshot, |row| {
            if row.attrelid.to_u32() == relation && (1..=count).contains(&row.attnum) {
                columns[row.attnum as usize - 1] = Some(Column::of(row, self.encoding));
            }
        });
        let columns: Option<Vec<Column>> = columns.into_iter().collect();
        columns.unwrap_or_else(|| damaged(self.db, PG_ATTRIBUTE, Damaged("a column has no row")))
    }

    /// Locked as the table is: REINDEX and VACUUM FULL of either would move its file.
    fn toast(&self, oid: u32) -> Option<Toast> {
        lock(self.db, oid);
        let mut index = None;
        let place = (PG_INDEX, PG_INDEX_BY_TABLE);
        self.catalog(PG_INDEX);
        self.catalog(PG_INDEX_BY_TABLE);
        self.rows::<IndexRow>(place, oid, horizon::new_snapshot(), |row| {
            if row.table == oid && row.valid != 0 {
                index = Some(row.index);
            }
        });
        let index = index?;
        lock(self.db, index);
        Some(Toast {
            oid,
            pages: self.pages_of(&self.class_now(oid)?),
            index: self.pages_of(&self.class_now(index)?),
        })
    }
}

/// What a catalog's rows look like: the same in each database of a server.
struct Form(pg_sys::Relation);

impl Form {
    fn open(table: u32) -> Self {
        // SAFETY: a catalog's number.
        Form(unsafe { pg_sys::table_open(table.into(), pg_sys::AccessShareLock as i32) })
    }

    fn show(&self, page: &Page, tuple: &heap::Tuple, what: &mut impl FnMut(&Row)) {
        let mut found = pg_sys::HeapTupleData {
            t_len: tuple.len as u32,
            ..Default::default()
        };
        // SAFETY: a whole tuple of that catalog, as long as `what` runs.
        unsafe {
            found.t_data = page.as_ptr().add(tuple.at).cast_mut().cast();
            what(&Row::new(&mut found, (*self.0).rd_att));
        }
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us.
            unsafe { pg_sys::table_close(self.0, pg_sys::AccessShareLock as i32) };
        }
    }
}

/// A name in that encoding.
fn name(name: &pg_sys::NameData, encoding: i32) -> String {
    let bytes: Vec<u8> = name.data.iter().map(|c| *c as u8).collect();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    text::from(&bytes[..end], encoding)
}

/// Locks the relation against changes of its form until the transaction's end, as a statement in its own
/// database does. The tag names the database that sessions are in: a fork, not its base.
fn lock(db: u32, oid: u32) {
    let mode = pg_sys::AccessShareLock as i32;
    // SAFETY: a whole tag.
    unsafe { pg_sys::LockAcquire(&tag(db, oid), mode, false, false) };
}

fn tag(db: u32, oid: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: db,
        locktag_field2: oid,
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    }
}

/// The table with this number in `db`, as [`super::hold`] returned it; locked. `None`: there is none with rows on
/// pages of the heap's.
pub fn open(db: u32, oid: u32) -> Option<Relation> {
    lock(db, oid);
    let catalogs = Catalogs::open(db);
    let class = catalogs.class(oid).filter(|class| {
        let table = matches!(
            class.relkind as u8,
            pg_sys::RELKIND_RELATION | pg_sys::RELKIND_MATVIEW
        );
        table && class.relam == pg_sys::HEAP_TABLE_AM_OID
    })?;
    let toast = match class.reltoastrelid.to_u32() {
        0 => None,
        toast => catalogs.toast(toast),
    };
    Some(Relation {
        db,
        oid,
        name: catalogs.text(&class.relname),
        pages: catalogs.pages_of(&class),
        relpages: class.relpages,
        reltuples: class.reltuples,
        columns: catalogs.columns(oid, class.relnatts),
        encoding: catalogs.encoding,
        conversions: Vec::new(),
        toast,
    })
}

/// The places of rows that an index on a number leads to, in the index's order.
fn places(db: u32, index: &Pages, key: u32) -> Vec<btree::Tid> {
    let mut blocks = index.count();
    let look = |block: u32, step: &mut dyn FnMut(&Page)| {
        if block >= blocks {
            // Split since.
            blocks = index.count();
        }
        if block >= blocks {
            return Err(Damaged("an index leads past its end"));
        }
        index.show(block, std::ptr::null_mut(), step);
        Ok(())
    };
    match btree::search(key, u32::MAX / 4, look) {
        Ok(tids) => tids,
        Err(error) => damaged(db, index.node.relNode.to_u32(), error),
    }
}

/// Calls `what` with each row that `sees` accepts and an index on a number leads to. May lead to others too,
/// where a row's place was taken by another meanwhile.
fn rows_by_number(
    db: u32,
    table: &Pages,
    index: &Pages,
    key: u32,
    sees: impl Fn(&heap::Tuple, &Page) -> bool,
    mut what: impl FnMut(&Page, &heap::Tuple),
) {
    let tids = places(db, index, key);
    let mut page = Box::new([0; PAGE_SIZE]);
    let mut at = None;
    let blocks = table.count();
    for (block, number) in tids {
        if block >= blocks {
            continue; // truncated by VACUUM: the row was dead
        }
        if at != Some(block) {
            pgrx::check_for_interrupts!();
            table.read(block, std::ptr::null_mut(), &mut page);
            at = Some(block);
        }
        let seen = heap::chain(&page, block, number, |tuple| Ok(sees(tuple, &page)));
        match seen {
            Ok(Some(tuple)) => what(&page, &tuple),
            Ok(None) => {}
            Err(error) => damaged(db, table.node.relNode.to_u32(), error),
        }
    }
}

/// The same on pages as they lie in the buffers: `what` must lock no other. The rows of TOAST tables are
/// never updated, and each block's lie together.
pub fn rows_in_place(
    db: u32,
    table: &Pages,
    index: &Pages,
    key: u32,
    sees: impl Fn(&heap::Tuple) -> bool,
    mut what: impl FnMut(&Page, &heap::Tuple),
) {
    let tids = places(db, index, key);
    let blocks = table.count();
    for together in tids.chunk_by(|one, next| one.0 == next.0) {
        let block = together[0].0;
        if block >= blocks {
            continue; // truncated by VACUUM: the row was dead
        }
        let done = table.show(block, std::ptr::null_mut(), |page| {
            for (_, number) in together {
                if let Some(tuple) = heap::chain(page, block, *number, |tuple| Ok(sees(tuple)))? {
                    what(page, &tuple);
                }
            }
            Ok(())
        });
        if let Err(error) = done {
            damaged(db, table.node.relNode.to_u32(), error);
        }
    }
}
