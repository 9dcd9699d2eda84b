//! The worker: its life in a fork, and in the fork's base.
#![allow(unsafe_code)] // a bgworker's entry point, transactions, snapshots

use crate::attach::{settings as database_settings, visit};
use crate::pg::queue::{self, Header};
use crate::reader::horizon;
use crate::remote::settings;
use crate::remote::wire::{self, Request, Side};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CString;

/// Why a job ends early. Errors of PostgreSQL's are not among them: they end the worker, on their way to
/// the caller.
#[derive(Debug)]
pub enum Failed {
    /// Nobody listens any more.
    Detached,
    /// A request that cannot be read.
    Protocol,
}

/// Where a job's rows go.
#[derive(Default)]
pub struct Out {
    bytes: Vec<u8>,
}

impl Out {
    /// A row of texts.
    pub fn row(&mut self, columns: &[Option<&str>]) -> Result<(), Failed> {
        self.bytes.clear();
        wire::encode_row(&mut self.bytes, columns);
        match queue::put_message(wire::ROW, &self.bytes) {
            true => Ok(()),
            false => Err(Failed::Detached),
        }
    }
}

/// SIGTERM, as a client's session takes it.
unsafe extern "C-unwind" fn terminate(signal: i32) {
    // SAFETY: sets flags (postgres.c).
    unsafe { pg_sys::die(signal) }
}

/// The worker's life.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_fork_remote_main(handle: pg_sys::Datum) {
    // SAFETY: a bgworker's first steps, as parallel.c has them: `ParallelWorkerMain`.
    let (mut session, requests) = unsafe {
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(terminate));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        // No resource owner: the memory is ours until the process ends.
        let segment = pg_sys::dsm_attach(handle.value() as u32);
        if segment.is_null() {
            return; // The caller is gone.
        }
        let (header, requests, replies) = queue::places(segment);
        pg_sys::shm_mq_set_receiver(requests, pg_sys::MyProc);
        pg_sys::shm_mq_set_sender(replies, pg_sys::MyProc);
        let none = std::ptr::null_mut();
        let requests = pg_sys::shm_mq_attach(requests, segment, none);
        // From here on errors go to the caller.
        queue::pq_redirect_to_shm_mq(segment, pg_sys::shm_mq_attach(replies, segment, none));
        let header = header.read();
        // What the database's owner has set for its sessions is not for this one.
        database_settings::note_base();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            header.database.into(),
            header.login.into(),
            0,
        );
        database_settings::apply(&[]);
        (Session::new(header), requests)
    };
    while let Some(request) = receive(requests) {
        if session.serve(&request).is_err() {
            return;
        }
    }
    session.end();
}

/// The next request; `None` once nobody asks any more.
fn receive(requests: *mut pg_sys::shm_mq_handle) -> Option<Request> {
    let (mut len, mut data) = (0, std::ptr::null_mut());
    // SAFETY: waits for the caller, serving interrupts; the bytes are good until the next call.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        let result = pg_sys::shm_mq_receive(requests, &mut len, &mut data, false);
        if result != pg_sys::shm_mq_result::SHM_MQ_SUCCESS {
            return None;
        }
        Request::decode(std::slice::from_raw_parts(data.cast::<u8>(), len))
    }
}

struct Session {
    header: Header,
    side: Side,
    open: bool,
}

impl Session {
    fn new(header: Header) -> Self {
        Session {
            header,
            side: Side::Now,
            open: false,
        }
    }

    fn serve(&mut self, request: &Request) -> Result<(), Failed> {
        self.go(request.side);
        self.begin();
        // SAFETY: an open transaction. The text is copied.
        unsafe {
            if let Ok(text) = CString::new(request.arguments.clone()) {
                pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr());
            }
            // One snapshot for all that is asked for.
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        request.job.run(&request.arguments, &mut Out::default())?;
        // SAFETY: pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
        match queue::put_message(wire::DONE, &[]) {
            true => Ok(()),
            false => Err(Failed::Detached),
        }
    }

    /// Moves to the other side.
    fn go(&mut self, side: Side) {
        if side == self.side {
            return;
        }
        self.begin();
        let target = visit::prepare(self.header.database, side == Side::Cut);
        self.end();
        visit::go(self.header.database, &target);
        self.side = side;
        self.begin();
        if side == Side::Cut {
            visit::know_roles(self.header.database, self.header.user);
        }
    }

    /// A transaction that reads only, with one snapshot, and that prints the same way everywhere.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.open, true) {
            return;
        }
        // SAFETY: no transaction is open. The role is the caller's, which the login need not be: it may
        // not log in (`SET ROLE`). Nothing that runs here can take on another (guc.c,
        // `GUC_NOT_WHILE_SEC_REST`).
        unsafe {
            pg_sys::StartTransactionCommand();
            // Before there is a snapshot: it reads both sides, from one of them.
            horizon::protect();
            pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
            pg_sys::XactReadOnly = true;
            settings::of_worker();
            pg_sys::SetUserIdAndSecContext(
                self.header.user.into(),
                (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION)
                    as i32,
            );
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.open, false) {
            // SAFETY: the transaction that `begin` opened. The next must find no context of ours, and
            // nobody else's code runs between the two (xact.c, `StartTransaction`).
            unsafe {
                pg_sys::CommitTransactionCommand();
                pg_sys::SetUserIdAndSecContext(self.header.user.into(), 0);
            }
        }
    }
}
