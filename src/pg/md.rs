//! The exported functions of `md.c`, which pgrx does not bind, and the layout of `f_smgr`
//! (PostgreSQL 15.11 and later: `smgr_truncate` takes the old length too).

#![allow(non_snake_case)] // C's names

use pgrx::pg_sys::{BlockNumber, ForkNumber, RelFileNodeBackend, SMgrRelation};
use std::ffi::{c_char, c_void};

pub type OpenFn = unsafe extern "C-unwind" fn(SMgrRelation);
pub type CloseFn = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type);
pub type CreateFn = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, bool);
pub type ExistsFn = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type) -> bool;
pub type UnlinkFn = unsafe extern "C-unwind" fn(RelFileNodeBackend, ForkNumber::Type, bool);
pub type WriteFn =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, *mut c_char, bool);
pub type PrefetchFn =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber) -> bool;
pub type ReadFn =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, *mut c_char);
pub type WritebackFn =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, BlockNumber);
pub type NblocksFn = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type) -> BlockNumber;
pub type TruncateFn =
    unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type, BlockNumber, BlockNumber);
pub type SyncFn = unsafe extern "C-unwind" fn(SMgrRelation, ForkNumber::Type);

/// `f_smgr` of `smgr.c`, which is private to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FSmgr {
    pub init: *const c_void,
    pub shutdown: *const c_void,
    pub open: OpenFn,
    pub close: CloseFn,
    pub create: CreateFn,
    pub exists: ExistsFn,
    pub unlink: UnlinkFn,
    pub extend: WriteFn,
    pub prefetch: PrefetchFn,
    pub read: ReadFn,
    pub write: WriteFn,
    pub writeback: WritebackFn,
    pub nblocks: NblocksFn,
    pub truncate: TruncateFn,
    pub immedsync: SyncFn,
}

/// Slots in the table.
pub const SLOTS: usize = 15;
const _: () = assert!(size_of::<FSmgr>() == SLOTS * size_of::<usize>());

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    pub fn mdclose(reln: SMgrRelation, forknum: ForkNumber::Type);
    pub fn mdcreate(reln: SMgrRelation, forknum: ForkNumber::Type, is_redo: bool);
    pub fn mdexists(reln: SMgrRelation, forknum: ForkNumber::Type) -> bool;
    pub fn mdunlink(rnode: RelFileNodeBackend, forknum: ForkNumber::Type, is_redo: bool);
    pub fn mdextend(
        reln: SMgrRelation,
        forknum: ForkNumber::Type,
        block: BlockNumber,
        buffer: *mut c_char,
        skip_fsync: bool,
    );
    pub fn mdprefetch(reln: SMgrRelation, forknum: ForkNumber::Type, block: BlockNumber) -> bool;
    pub fn mdread(
        reln: SMgrRelation,
        forknum: ForkNumber::Type,
        block: BlockNumber,
        buffer: *mut c_char,
    );
    pub fn mdwrite(
        reln: SMgrRelation,
        forknum: ForkNumber::Type,
        block: BlockNumber,
        buffer: *mut c_char,
        skip_fsync: bool,
    );
    pub fn mdwriteback(
        reln: SMgrRelation,
        forknum: ForkNumber::Type,
        block: BlockNumber,
        nblocks: BlockNumber,
    );
    pub fn mdnblocks(reln: SMgrRelation, forknum: ForkNumber::Type) -> BlockNumber;
    pub fn mdtruncate(
        reln: SMgrRelation,
        forknum: ForkNumber::Type,
        old_blocks: BlockNumber,
        nblocks: BlockNumber,
    );
    pub fn mdimmedsync(reln: SMgrRelation, forknum: ForkNumber::Type);
    pub fn ForgetDatabaseSyncRequests(dbid: pgrx::pg_sys::Oid);
}

/// The same functions without pgrx's guard: for the paths on which no fork is involved, and for
/// their addresses.
pub mod raw {
    use super::*;

    extern "C-unwind" {
        pub fn mdinit();
        pub fn mdopen(reln: SMgrRelation);
        pub fn mdclose(reln: SMgrRelation, forknum: ForkNumber::Type);
        pub fn mdcreate(reln: SMgrRelation, forknum: ForkNumber::Type, is_redo: bool);
        pub fn mdexists(reln: SMgrRelation, forknum: ForkNumber::Type) -> bool;
        pub fn mdunlink(rnode: RelFileNodeBackend, forknum: ForkNumber::Type, is_redo: bool);
        pub fn mdextend(
            r: SMgrRelation,
            f: ForkNumber::Type,
            b: BlockNumber,
            buffer: *mut c_char,
            skip: bool,
        );
        pub fn mdprefetch(
            reln: SMgrRelation,
            forknum: ForkNumber::Type,
            block: BlockNumber,
        ) -> bool;
        pub fn mdread(
            reln: SMgrRelation,
            forknum: ForkNumber::Type,
            block: BlockNumber,
            buffer: *mut c_char,
        );
        pub fn mdwrite(
            r: SMgrRelation,
            f: ForkNumber::Type,
            b: BlockNumber,
            buffer: *mut c_char,
            skip: bool,
        );
        pub fn mdwriteback(
            reln: SMgrRelation,
            forknum: ForkNumber::Type,
            block: BlockNumber,
            n: BlockNumber,
        );
        pub fn mdnblocks(reln: SMgrRelation, forknum: ForkNumber::Type) -> BlockNumber;
        pub fn mdtruncate(
            r: SMgrRelation,
            f: ForkNumber::Type,
            old_blocks: BlockNumber,
            nblocks: BlockNumber,
        );
        pub fn mdimmedsync(reln: SMgrRelation, forknum: ForkNumber::Type);
    }
}

/// The table as `smgr.c` must hold it.
pub fn stock() -> FSmgr {
    FSmgr {
        init: raw::mdinit as *const c_void,
        shutdown: std::ptr::null(),
        open: raw::mdopen,
        close: raw::mdclose,
        create: raw::mdcreate,
        exists: raw::mdexists,
        unlink: raw::mdunlink,
        extend: raw::mdextend,
        prefetch: raw::mdprefetch,
        read: raw::mdread,
        write: raw::mdwrite,
        writeback: raw::mdwriteback,
        nblocks: raw::mdnblocks,
        truncate: raw::mdtruncate,
        immedsync: raw::mdimmedsync,
    }
}
