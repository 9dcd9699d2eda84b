//! The slot of a mounted table: a heap tuple on a copied page, whose TOAST values are in another database.
//!
//! PostgreSQL's heap slots (execTuples.c, `TTSOpsHeapTuple`) do all but that: a TOAST pointer must not
//! leave the slot, because it would be looked up in this database.
#![allow(unsafe_code)] // the executor's slots

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
    snapshot: pg_sys::Snapshot,
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

/// Puts a tuple of a copied page, which outlives it there, into the slot.
///
/// # Safety
/// The slot has our operations; `data` is a whole tuple of `len` bytes that stays while it is in the slot,
/// as `relation` and `snapshot` do.
pub unsafe fn store(
    slot: *mut TupleTableSlot,
    (data, len): (*const u8, usize),
    (block, number): (u32, u16),
    table: pg_sys::Oid,
    relation: &Relation,
    snapshot: pg_sys::Snapshot,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        clear(slot);
        let own = &mut *slot.cast::<ForkSlot>();
        let tuple = &mut own.heap.tupdata;
        tuple.t_len = len as u32;
        tuple.t_tableOid = table;
        pgrx::itemptr::item_pointer_set_all(&mut tuple.t_self, block, number);
        tuple.t_data = data.cast_mut().cast();
        (own.relation, own.snapshot) = (relation, snapshot);
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
        if has_external(&*slot.cast::<ForkSlot>()) {
            fetch(slot, first as usize);
        }
    }
}

/// Replaces TOAST pointers among the columns from `first` on that have been taken apart.
#[pg_guard]
unsafe extern "C-unwind" fn fetch(slot: *mut TupleTableSlot, first: usize) {
    // SAFETY: as above; the columns' values are whole.
    unsafe {
        let own = &mut *slot.cast::<ForkSlot>();
        let columns = (*slot).tts_tupleDescriptor;
        let columns = (*columns).attrs.as_slice((*columns).natts as usize);
        for n in first..(*slot).tts_nvalid as usize {
            if columns[n].attlen != -1 || *(*slot).tts_isnull.add(n) {
                continue;
            }
            let value = (*slot).tts_values.add(n);
            let Some(pointer) = toast::pointer((*value).cast_mut_ptr()) else {
                continue;
            };
            if own.fetched.is_null() {
                own.fetched = pg_sys::AllocSetContextCreateInternal(
                    (*slot).tts_mcxt,
                    c"pg_fork TOAST values".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                );
            }
            let last = pg_sys::MemoryContextSwitchTo(own.fetched);
            *value = pg_sys::Datum::from(toast::fetch(&*own.relation, &pointer, own.snapshot));
            pg_sys::MemoryContextSwitchTo(last);
        }
    }
}

/// Makes the slot hold a tuple of its own without TOAST pointers.
#[pg_guard]
unsafe extern "C-unwind" fn flatten(slot: *mut TupleTableSlot) {
    // SAFETY: as above.
    unsafe {
        let own = &mut *slot.cast::<ForkSlot>();
        if !has_external(own) {
            return;
        }
        let natts = (*(*slot).tts_tupleDescriptor).natts;
        if i32::from((*slot).tts_nvalid) < natts {
            pg_sys::slot_getsomeattrs_int(slot, natts);
        }
        let last = pg_sys::MemoryContextSwitchTo((*slot).tts_mcxt);
        let flat = pg_sys::heap_form_tuple(
            (*slot).tts_tupleDescriptor,
            (*slot).tts_values,
            (*slot).tts_isnull,
        );
        pg_sys::MemoryContextSwitchTo(last);
        let old = own.heap.tuple;
        (*flat).t_self = (*old).t_self;
        (*flat).t_tableOid = (*old).t_tableOid;
        (*(*flat).t_data).t_choice = (*(*old).t_data).t_choice;
        (*(*flat).t_data).t_ctid = (*(*old).t_data).t_ctid;
        own.heap.tuple = flat;
        own.heap.off = 0;
        (*slot).tts_nvalid = 0;
        (*slot).tts_flags |= pg_sys::TTS_FLAG_SHOULDFREE as u16;
        pg_sys::MemoryContextReset(own.fetched);
    }
}

unsafe extern "C-unwind" fn materialize(slot: *mut TupleTableSlot) {
    // SAFETY: as above.
    unsafe {
        flatten(slot);
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
        (*to).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*to).tts_flags |= pg_sys::TTS_FLAG_SHOULDFREE as u16;
    }
}

unsafe extern "C-unwind" fn get_heap_tuple(slot: *mut TupleTableSlot) -> HeapTuple {
    // SAFETY: as above.
    unsafe {
        flatten(slot);
        heap_operation!(get_heap_tuple(slot))
    }
}

unsafe extern "C-unwind" fn copy_heap_tuple(slot: *mut TupleTableSlot) -> HeapTuple {
    // SAFETY: as above.
    unsafe {
        flatten(slot);
        heap_operation!(copy_heap_tuple(slot))
    }
}

unsafe extern "C-unwind" fn copy_minimal_tuple(slot: *mut TupleTableSlot) -> MinimalTuple {
    // SAFETY: as above.
    unsafe {
        flatten(slot);
        heap_operation!(copy_minimal_tuple(slot))
    }
}
