//! Shared memory for a pair of message queues between two processes (shm_mq.c, pqmq.c).

use crate::pg::comm;
use pgrx::pg_sys;
use std::ffi::c_char;

/// What the two agree on, at the start of the memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    /// The database to log in to.
    pub database: u32,
    /// The role to log in as.
    pub login: u32,
    /// The role whose rights count.
    pub user: u32,
}

const REQUESTS: usize = 64;
const REQUESTS_SIZE: usize = 16 * 1024;
const REPLIES: usize = REQUESTS + REQUESTS_SIZE;
const REPLIES_SIZE: usize = 64 * 1024;
pub const SIZE: usize = REPLIES + REPLIES_SIZE;
const _: () = assert!(size_of::<Header>() <= REQUESTS);

#[pgrx::pg_guard]
unsafe extern "C-unwind" {
    /// pqmq.c
    pub fn pq_redirect_to_shm_mq(
        segment: *mut pg_sys::dsm_segment,
        queue: *mut pg_sys::shm_mq_handle,
    );
    /// pqmq.c
    pub fn pq_parse_errornotice(message: pg_sys::StringInfo, error: *mut pg_sys::ErrorData);
}

/// The two queues' places in the memory.
pub unsafe fn places(
    segment: *mut pg_sys::dsm_segment,
) -> (*mut Header, *mut pg_sys::shm_mq, *mut pg_sys::shm_mq) {
    // SAFETY: a segment of `SIZE` bytes.
    unsafe {
        let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
        (
            start.cast(),
            start.add(REQUESTS).cast(),
            start.add(REPLIES).cast(),
        )
    }
}

/// New memory with its queues, this process the one that asks. Goes with the resource owner.
pub unsafe fn create(
    header: Header,
) -> (
    *mut pg_sys::dsm_segment,
    *mut pg_sys::shm_mq,
    *mut pg_sys::shm_mq,
) {
    // SAFETY: raises 53200 or 53400 without room; else memory that is ours alone yet.
    unsafe {
        let segment = pg_sys::dsm_create(SIZE, 0);
        let (at, requests, replies) = places(segment);
        at.write(header);
        pg_sys::shm_mq_create(requests.cast(), REQUESTS_SIZE);
        pg_sys::shm_mq_create(replies.cast(), REPLIES_SIZE);
        pg_sys::shm_mq_set_sender(requests, pg_sys::MyProc);
        pg_sys::shm_mq_set_receiver(replies, pg_sys::MyProc);
        (segment, requests, replies)
    }
}

/// Sends a message to where this process's messages for its client go. Whether it went: not if the other
/// end is gone.
pub fn put_message(kind: u8, bytes: &[u8]) -> bool {
    // SAFETY: the table in use; waits while the queue is full, and may raise an error then.
    unsafe {
        let put = (*comm::current()).putmessage;
        let (at, len) = (bytes.as_ptr().cast(), bytes.len());
        pg_sys::ffi::pg_guard_ffi_boundary(|| put(kind as c_char, at, len)) == 0
    }
}
