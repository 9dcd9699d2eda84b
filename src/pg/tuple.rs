//! Rows of shared catalogs: found by one number through an index, copied with other values, removed.
//!
//! All of it in the caller's transaction, as the catalogs' own code does it (indexing.c), with a
//! fresh snapshot for each look, whatever the transaction's isolation level is.

use pgrx::pg_sys::{self, Datum, Oid};

/// The rows whose column is this number.
fn oid_key(column: i16, value: u32) -> pg_sys::ScanKeyData {
    // SAFETY: a whole key.
    unsafe {
        let mut key = std::mem::zeroed::<pg_sys::ScanKeyData>();
        pg_sys::ScanKeyInit(
            &mut key,
            column,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::RegProcedure::from(184), // oideq
            Datum::from(Oid::from(value)),
        );
        key
    }
}

/// An open catalog.
pub struct Catalog {
    relation: pg_sys::Relation,
    /// Let go of when it is closed.
    lock: u32,
}

impl Catalog {
    /// Opens the catalog to write to it.
    pub fn open(number: u32) -> Self {
        // The lock is kept until the transaction's end, as dropdb does.
        Self::locked(number, pg_sys::RowExclusiveLock, pg_sys::NoLock)
    }

    /// Opens the catalog to read it.
    pub fn read(number: u32) -> Self {
        Self::locked(number, pg_sys::AccessShareLock, pg_sys::AccessShareLock)
    }

    fn locked(number: u32, mode: u32, lock: u32) -> Self {
        // SAFETY: a catalog's number; an error ends the transaction, which closes it.
        let relation = unsafe { pg_sys::table_open(number.into(), mode as i32) };
        Catalog { relation, lock }
    }

    /// Calls `what` with each row whose column `column`, the first of the index, has the value.
    pub fn each(&self, index: u32, column: i16, value: u32, what: impl FnMut(&Row)) {
        self.find(index, &[(column, value)], what);
    }

    /// Calls `what` with each row whose columns, the first ones of the index, have the values.
    pub fn find(&self, index: u32, wanted: &[(i16, u32)], what: impl FnMut(&Row)) {
        let mut keys: Vec<_> = wanted
            .iter()
            .map(|(column, value)| oid_key(*column, *value))
            .collect();
        self.scan(std::ptr::null_mut(), index, &mut keys, what);
    }

    /// As [`Catalog::each`], as the snapshot sees the rows.
    ///
    /// # Safety
    /// Nothing that the snapshot sees has been removed: this process's own is as old.
    pub unsafe fn each_seen_by(
        &self,
        snapshot: pg_sys::Snapshot,
        index: u32,
        column: i16,
        value: u32,
        what: impl FnMut(&Row),
    ) {
        self.scan(snapshot, index, &mut [oid_key(column, value)], what);
    }

    /// Calls `what` with each row, in the order of the index; in that of the table for index 0.
    pub fn all(&self, index: u32, what: impl FnMut(&Row)) {
        self.scan(std::ptr::null_mut(), index, &mut [], what);
    }

    fn scan(
        &self,
        snapshot: pg_sys::Snapshot,
        index: u32,
        keys: &mut [pg_sys::ScanKeyData],
        mut what: impl FnMut(&Row),
    ) {
        // SAFETY: a scan of an index of this catalog, ended here; a row lives until the next.
        unsafe {
            let scan = pg_sys::systable_beginscan(
                self.relation,
                index.into(),
                // Not in a process that works in no database (relcache.c).
                index != 0 && pg_sys::criticalSharedRelcachesBuilt,
                snapshot,
                keys.len() as i32,
                keys.as_mut_ptr(),
            );
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                what(&Row {
                    tuple,
                    descriptor: (*self.relation).rd_att,
                });
            }
            pg_sys::systable_endscan(scan);
        }
    }

    /// Puts in a copy of the row with these columns (from 1) changed; `None` is null.
    pub fn insert_like(&self, row: &Row, changes: &[(usize, Option<Datum>)]) {
        self.write_like(row, changes, false, None);
    }

    /// The catalog's indexes, for many rows to be put in.
    pub fn indexes(&self) -> Indexes {
        // SAFETY: open to be written to.
        Indexes(unsafe { pg_sys::CatalogOpenIndexes(self.relation) })
    }

    /// As [`Catalog::insert_like`], with the indexes open.
    pub fn insert_like_with(
        &self,
        indexes: &Indexes,
        row: &Row,
        changes: &[(usize, Option<Datum>)],
    ) {
        self.write_like(row, changes, false, Some(indexes));
    }

    /// Changes these columns (from 1) of the row; `None` is null.
    pub fn update_like(&self, row: &Row, changes: &[(usize, Option<Datum>)]) {
        self.write_like(row, changes, true, None);
    }

    fn write_like(
        &self,
        row: &Row,
        changes: &[(usize, Option<Datum>)],
        update: bool,
        indexes: Option<&Indexes>,
    ) {
        const MOST: usize = 32;
        let (mut values, mut nulls, mut replace) =
            ([Datum::from(0usize); MOST], [false; MOST], [false; MOST]);
        for (column, value) in changes {
            values[column - 1] = value.unwrap_or(Datum::from(0usize));
            nulls[column - 1] = value.is_none();
            replace[column - 1] = true;
        }
        // SAFETY: arrays as long as any catalog here has columns.
        unsafe {
            let copy = pg_sys::heap_modify_tuple(
                row.tuple,
                row.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                replace.as_mut_ptr(),
            );
            match indexes {
                _ if update => {
                    pg_sys::CatalogTupleUpdate(self.relation, &raw mut (*row.tuple).t_self, copy)
                }
                Some(open) => pg_sys::CatalogTupleInsertWithInfo(self.relation, copy, open.0),
                None => pg_sys::CatalogTupleInsert(self.relation, copy),
            }
            pg_sys::heap_freetuple(copy);
        }
    }

    /// Puts in a row of these columns, none of which is null.
    pub fn insert(&self, columns: &mut [Datum]) {
        let mut nulls = vec![false; columns.len()];
        // SAFETY: the caller gives each of the catalog's columns.
        unsafe {
            let row = pg_sys::heap_form_tuple(
                (*self.relation).rd_att,
                columns.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::CatalogTupleInsert(self.relation, row);
            pg_sys::heap_freetuple(row);
        }
    }

    /// The catalog itself, for functions of the server's.
    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    pub fn remove(&self, row: &Row) {
        // SAFETY: a row of this catalog.
        unsafe { pg_sys::CatalogTupleDelete(self.relation, &raw mut (*row.tuple).t_self) };
    }
}

/// A catalog's open indexes.
pub struct Indexes(pg_sys::CatalogIndexState);

impl Drop for Indexes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `indexes`.
            unsafe { pg_sys::CatalogCloseIndexes(self.0) };
        }
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        // While an error unwinds, the end of the transaction closes it.
        if !std::thread::panicking() {
            // SAFETY: opened by us.
            unsafe { pg_sys::table_close(self.relation, self.lock as i32) };
        }
    }
}

/// A row that a scan found.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// # Safety
    /// The tuple is of that form, and both outlive the row.
    pub unsafe fn new(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        Row { tuple, descriptor }
    }

    /// Whether a transaction that has not ended has changed, removed or locked the row.
    pub fn is_being_changed(&self) -> bool {
        // SAFETY: the scan's row, on a page that it has pinned; look-ups.
        unsafe {
            let header = (*self.tuple).t_data;
            let mask = u32::from((*header).t_infomask);
            let xmax = (*header).t_choice.t_heap.t_xmax;
            match mask {
                _ if mask & pg_sys::HEAP_XMAX_INVALID != 0 => false,
                _ if mask & pg_sys::HEAP_XMAX_IS_MULTI != 0 => {
                    let only_locks = mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0;
                    pg_sys::MultiXactIdIsRunning(xmax.into_inner().into(), only_locks)
                }
                _ => pg_sys::TransactionIdIsInProgress(xmax),
            }
        }
    }

    /// The fixed part of the row.
    ///
    /// # Safety
    /// `T` is the catalog's `FormData_…`.
    pub unsafe fn fixed<T>(&self) -> &T {
        // SAFETY: by the caller's promise; GETSTRUCT of htup_details.h.
        unsafe {
            let header = (*self.tuple).t_data;
            &*header
                .cast::<u8>()
                .add(usize::from((*header).t_hoff))
                .cast()
        }
    }

    /// A column (from 1); `None` if it is null.
    pub fn column(&self, column: i32) -> Option<Datum> {
        let mut null = false;
        // SAFETY: the scan's row and its descriptor.
        let value = unsafe { pg_sys::heap_getattr(self.tuple, column, self.descriptor, &mut null) };
        (!null).then_some(value)
    }

    /// A column of a type of variable length, whole; `None` if it is null, or does not end within the row, as
    /// on a damaged page.
    pub fn whole(&self, column: i32) -> Option<Datum> {
        let value = self.column(column)?;
        // SAFETY: the row's bytes; the value's length is looked at only where it lies within them.
        unsafe {
            let first = (*self.tuple).t_data.cast::<u8>() as usize;
            let end = first + (*self.tuple).t_len as usize;
            let at = value.cast_mut_ptr::<u8>();
            let room = end
                .checked_sub(at as usize)
                .filter(|_| at as usize >= first)?;
            // The longest header.
            let len = match room {
                0 => return None,
                1..4 if *at & 1 == 0 => return None,
                1 if *at == 1 => return None,
                _ => pgrx::varlena::varsize_any(at.cast()),
            };
            (len <= room).then_some(value)
        }
    }
}
