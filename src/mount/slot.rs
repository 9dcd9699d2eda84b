//! The slot of a mounted table: a heap tuple on a page that its scan has pinned, whose TOAST values are in another database.
//!
//! PostgreSQL's heap slots (execTuples.c, `TTSOpsHeapTuple`) do all but that: a TOAST pointer must not
//! leave the slot, because it would be looked up in this database.
#![allow(unsafe_code)] // the executor's slots

use super::lazy;
use crate::reader::relation::Relation;
use crate::reader::toast;
use pgrx::pg_sys;
use pgrx::pg_sys::{HeapTuple, HeapTupleTableSlot, MinimalTuple, TupleTableSlot};
use pgrx::prelude::*;
use std::sync::OnceLock;

const HEAP_HASEXTERNAL: u16 = 4;

/// Begins as the heap's slot does.
#[repr(C)]
struct ForkSlot {
    heap: HeapTupleTableSlot,
    relation: *const Relation,
    /// Columns of the mounted table are dropped: not to be shown.
    hides: bool,
    /// Holds what was fetched for the tuple.
    fetched: pg_sys::MemoryContext,
}

struct Operations(pg_sys::TupleTableSlotOps);

// SAFETY: function pointers.
unsafe impl Send for Operations {}
// SAFETY: never changed once made.
unsafe impl Sync for Operations {}

/// The slot's operations.
pub fn operations() -> *const pg_sys::TupleTableSlotOps {
    static OPERATIONS: OnceLock<Operations> = OnceLock::new();
    let operations = OPERATIONS.get_or_init(|| {
        Operations(pg_sys::TupleTableSlotOps {
            base_slot_size: std::mem::size_of::<ForkSlot>(),
            release: Some(release),
            clear: Some(clear),
            getsomeattrs: Some(getsomeattrs),
            materialize: Some(materialize),
            copyslot: Some(copyslot),
            get_heap_tuple: Some(get_heap_tuple),
            copy_heap_tuple: Some(copy_heap_tuple),
            copy_minimal_tuple: Some(copy_minimal_tuple),
            ..heap()
        })
    });
    &operations.0
}

fn heap() -> pg_sys::TupleTableSlotOps {
    // SAFETY: a constant of the server.
    unsafe { pg_sys::TTSOpsHeapTuple }
}

/// Calls one of the heap slot's operations.
macro_rules! heap_operation {
    ($name:ident ( $($argument:expr),* )) => {
        match (&raw const pg_sys::TTSOpsHeapTuple).read().$name {
            // Nothing in our frames needs to be dropped if it raises an error.
            Some(function) => function($($argument),*),
            None => unreachable!("heap slots have it"),
        }
    };
}

/// Puts a tuple of a page, which outlives it there, into the slot.
///
/// # Safety
/// The slot has our operations; `data` is a whole tuple of `len` bytes that stays while it is in the slot,
/// as `relation` does.
#[inline]
pub unsafe fn store(
    slot: *mut TupleTableSlot,
    (data, len): (*const u8, usize),
    (block, number): (u32, u16),
    table: pg_sys::Oid,
    relation: &Relation,
    hides: bool,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let own = &mut *slot.cast::<ForkSlot>();
        let owns = (*slot).tts_flags & pg_sys::TTS_FLAG_SHOULDFREE as u16 != 0;
        if owns || !own.fetched.is_null() {
            clear(slot);
        }
        let tuple = &mut own.heap.tupdata;
        tuple.t_len = len as u32;
        tuple.t_tableOid = table;
        pgrx::itemptr::item_pointer_set_all(&mut tuple.t_self, block, number);
        tuple.t_data = data.cast_mut().cast();
        (own.relation, own.hides) = (relation, hides);
        own.heap.tuple = tuple;
        own.heap.off = 0;
        (*slot).tts_nvalid = 0;
        (*slot).tts_tid = tuple.t_self;
        (*slot).tts_tableOid = table;
        (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16 | pg_sys::TTS_FLAG_SHOULDFREE as u16);
    }
}

unsafe fn has_external(own: &ForkSlot) -> bool {
    // SAFETY: a tuple in the slot is whole.
    unsafe {
        let tuple = own.heap.tuple;
        !own.relation.is_null()
            && !tuple.is_null()
            && (*(*tuple).t_data).t_infomask & HEAP_HASEXTERNAL != 0
    }
}

/// Whether the tuple must not leave the slot as it lies on the page: for its TOAST pointers, for columns
/// that are hidden, because the fork has added columns, or for its encoding.
unsafe fn is_foreign(slot: *mut TupleTableSlot) -> bool {
    // SAFETY: a tuple in the slot is whole.
    unsafe {
        let own = &*slot.cast::<ForkSlot>();
        let tuple = own.heap.tuple;
        if own.relation.is_null() || tuple.is_null() {
            return false;
        }
        let natts = i32::from((*(*tuple).t_data).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16);
        own.hides
            || has_external(own)
            || !(*own.relation).conversions.is_empty()
            || natts > (*(*slot).tts_tupleDescriptor).natts
    }
}

unsafe extern "C-unwind" fn release(slot: *mut TupleTableSlot) {
    // SAFETY: called with our slots only.
    unsafe {
        let own = &mut *slot.cast::<ForkSlot>();
        if !own.fetched.is_null() {
            pg_sys::MemoryContextDelete(own.fetched);
            own.fetched = std::ptr::null_mut();
        }
    }
}

unsafe extern "C-unwind" fn clear(slot: *mut TupleTableSlot) {
    // SAFETY: called with our slots only.
    unsafe {
        let own = &mut *slot.cast::<ForkSlot>();
        if !own.fetched.is_null() {
            pg_sys::MemoryContextReset(own.fetched);
        }
        own.relation = std::ptr::null();
        let flags = (*slot).tts_flags;
        if flags & pg_sys::TTS_FLAG_SHOULDFREE as u16 != 0 {
            heap_operation!(clear(slot));
            return;
        }
        (*slot).tts_nvalid = 0;
        (*slot).tts_flags = flags | pg_sys::TTS_FLAG_EMPTY as u16;
        own.heap.off = 0;
        own.heap.tuple = std::ptr::null_mut();
    }
}

unsafe extern "C-unwind" fn getsomeattrs(slot: *mut TupleTableSlot, wanted: i32) {
    // SAFETY: called with our slots only, while they hold a tuple.
    unsafe {
        let first = (*slot).tts_nvalid;
        heap_operation!(getsomeattrs(slot, wanted));
        let own = &*slot.cast::<ForkSlot>();
        if own.hides && !own.relation.is_null() {
            hide(slot, first as usize);
        }
        if has_external(own) {
            fetch(slot, first as usize);
        }
        if !own.relation.is_null() && !(*own.relation).conversions.is_empty() {
            convert(slot, first as usize);
        }
    }
}

/// Dropped columns may be ones that the mounting role has no right to read: they are null.
unsafe fn hide(slot: *mut TupleTableSlot, first: usize) {
    // SAFETY: as above.
    unsafe {
        let columns = (*slot).tts_tupleDescriptor;
        let columns = (*columns).attrs.as_slice((*columns).natts as usize);
        let last = (*slot).tts_nvalid as usize;
        for (n, column) in columns.iter().enumerate().take(last).skip(first) {
            if column.attisdropped {
                *(*slot).tts_isnull.add(n) = true;
            }
        }
    }
}

/// Replaces TOAST pointers among the columns from `first` on that have been taken apart.
#[pg_guard]
unsafe extern "C-unwind" fn fetch(slot: *mut TupleTableSlot, first: usize) {
    // SAFETY: as above; the columns' values are whole.
    unsafe {
        let relation = (*slot.cast::<ForkSlot>()).relation;
        let columns = (*slot).tts_tupleDescriptor;
        let columns = (*columns).attrs.as_slice((*columns).natts as usize);
        let last = (*slot).tts_nvalid as usize;
        for (n, column) in columns.iter().enumerate().take(last).skip(first) {
            if column.attlen != -1 || *(*slot).tts_isnull.add(n) {
                continue;
            }
            let value = (*slot).tts_values.add(n);
            let Some(pointer) = toast::pointer((*value).cast_mut_ptr()) else {
                continue;
            };
            let last = pg_sys::MemoryContextSwitchTo(fetched(slot));
            let lazy = (*relation).conversions.is_empty() && lazy::suits(column.atttypid);
            *value = match lazy {
                true => lazy::value(relation, pointer, fetched(slot)),
                false => pg_sys::Datum::from(toast::fetch(&*relation, &pointer)),
            };
            pg_sys::MemoryContextSwitchTo(last);
        }
    }
}

/// The memory for what is fetched for the tuple in the slot.
unsafe fn fetched(slot: *mut TupleTableSlot) -> pg_sys::MemoryContext {
    // SAFETY: called with our slots only.
    unsafe {
        let own = &mut *slot.cast::<ForkSlot>();
        if own.fetched.is_null() {
            own.fetched = pg_sys::AllocSetContextCreateInternal(
                (*slot).tts_mcxt,
                c"pg_fork TOAST values".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
        }
        own.fetched
    }
}

/// Brings the text of the columns from `first` on that have been taken apart into this database's encoding.
#[pg_guard]
unsafe extern "C-unwind" fn convert(slot: *mut TupleTableSlot, first: usize) {
    // SAFETY: as above; the columns' values are whole, and bear no TOAST pointer any more.
    unsafe {
        let (relation, tuple) = {
            let own = &*slot.cast::<ForkSlot>();
            (&*own.relation, own.heap.tuple)
        };
        // Columns that the tuple has not come from this database's catalogs.
        let stored = (*(*tuple).t_data).t_infomask2 & pg_sys::HEAP_NATTS_MASK as u16;
        let last = usize::min((*slot).tts_nvalid as usize, stored.into());
        let context = pg_sys::MemoryContextSwitchTo(fetched(slot));
        for n in (first..last).filter(|n| !*(*slot).tts_isnull.add(*n)) {
            if let Some(conversion) = relation.conversions.get(n) {
                let value = (*slot).tts_values.add(n);
                *value = conversion.convert(*value, relation.encoding);
            }
        }
        pg_sys::MemoryContextSwitchTo(context);
    }
}

/// All columns taken apart, as the slot shows them.
unsafe fn all_columns(slot: *mut TupleTableSlot) {
    // SAFETY: as above.
    unsafe {
        let natts = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < natts {
            pg_sys::slot_getsomeattrs_int(slot, natts);
        }
    }
}

/// A tuple of the slot's form, without TOAST pointers, in the current memory context. The slot stays as it is.
#[pg_guard]
unsafe extern "C-unwind" fn form(slot: *mut TupleTableSlot) -> HeapTuple {
    // SAFETY: as above.
    unsafe {
        all_columns(slot);
        let old = (*slot.cast::<ForkSlot>()).heap.tuple;
        let flat = pg_sys::heap_form_tuple(
            (*slot).tts_tupleDescriptor,
            (*slot).tts_values,
            (*slot).tts_isnull,
        );
        (*flat).t_self = (*old).t_self;
        (*flat).t_tableOid = (*old).t_tableOid;
        (*(*flat).t_data).t_choice = (*(*old).t_data).t_choice;
        (*(*flat).t_data).t_ctid = (*(*old).t_data).t_ctid;
        flat
    }
}

/// Makes the slot hold a tuple of its own.
#[pg_guard]
unsafe extern "C-unwind" fn flatten(slot: *mut TupleTableSlot) {
    // SAFETY: as above.
    unsafe {
        let last = pg_sys::MemoryContextSwitchTo((*slot).tts_mcxt);
        let flat = form(slot);
        pg_sys::MemoryContextSwitchTo(last);
        let own = &mut *slot.cast::<ForkSlot>();
        own.heap.tuple = flat;
        own.heap.off = 0;
        own.relation = std::ptr::null();
        (*slot).tts_nvalid = 0;
        (*slot).tts_flags |= pg_sys::TTS_FLAG_SHOULDFREE as u16;
        if !own.fetched.is_null() {
            pg_sys::MemoryContextReset(own.fetched);
        }
    }
}

unsafe extern "C-unwind" fn materialize(slot: *mut TupleTableSlot) {
    // SAFETY: as above.
    unsafe {
        if is_foreign(slot) {
            flatten(slot);
        }
        heap_operation!(materialize(slot));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn copyslot(to: *mut TupleTableSlot, from: *mut TupleTableSlot) {
    // SAFETY: `from` may be any slot; its copy is `to`'s, whose context it lies in.
    unsafe {
        clear(to);
        let last = pg_sys::MemoryContextSwitchTo((*to).tts_mcxt);
        let copy = match (*(*from).tts_ops).copy_heap_tuple {
            Some(copy) => pg_sys::ffi::pg_guard_ffi_boundary(|| copy(from)),
            None => unreachable!("every slot has it"),
        };
        pg_sys::MemoryContextSwitchTo(last);
        let own = &mut *to.cast::<ForkSlot>();
        own.heap.tuple = copy;
        (*to).tts_tid = (*copy).t_self;
        (*to).tts_tableOid = (*copy).t_tableOid;
        (*to).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*to).tts_flags |= pg_sys::TTS_FLAG_SHOULDFREE as u16;
    }
}

unsafe extern "C-unwind" fn get_heap_tuple(slot: *mut TupleTableSlot) -> HeapTuple {
    // SAFETY: as above.
    unsafe {
        if is_foreign(slot) {
            flatten(slot);
        }
        heap_operation!(get_heap_tuple(slot))
    }
}

unsafe extern "C-unwind" fn copy_heap_tuple(slot: *mut TupleTableSlot) -> HeapTuple {
    // SAFETY: as above.
    unsafe {
        match is_foreign(slot) {
            true => form(slot),
            false => heap_operation!(copy_heap_tuple(slot)),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn form_minimal(slot: *mut TupleTableSlot) -> MinimalTuple {
    // SAFETY: as above.
    unsafe {
        all_columns(slot);
        pg_sys::heap_form_minimal_tuple(
            (*slot).tts_tupleDescriptor,
            (*slot).tts_values,
            (*slot).tts_isnull,
        )
    }
}

unsafe extern "C-unwind" fn copy_minimal_tuple(slot: *mut TupleTableSlot) -> MinimalTuple {
    // SAFETY: as above.
    unsafe {
        match is_foreign(slot) {
            true => form_minimal(slot),
            false => heap_operation!(copy_minimal_tuple(slot)),
        }
    }
}
