//! The caller's end: starts a worker in a fork, asks it, and ends it.
#![allow(unsafe_code)] // shared memory, a background worker, error data

use crate::fork::{catalog, pending};
use crate::pg::queue::{self, Header};
use crate::pg::raw;
use crate::remote::jobs::Job;
use crate::remote::said;
use crate::remote::wire::{self, Columns, Request, Side};
use crate::shmem::registry::{self, ForkState, Slot};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::{c_char, CStr, CString};

fn refuse(code: PgSqlErrorCode, message: String, hint: &str) -> ! {
    ErrorReport::new(code, message, "fork")
        .set_hint(hint)
        .report(PgLogLevel::ERROR);
    unreachable!()
}

/// The fork of that name, if the caller may look into it.
///
/// Raises 3D000 (no such database), 42809 (not a fork), 55000 (invalid, not committed yet, or accepts no
/// connections), 42501 (no CONNECT).
pub fn fork_named(name: &str) -> Slot {
    let Some(oid) = catalog::database_oid(name) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist")
        );
    };
    let Some(fork) = registry::fork(oid).filter(|fork| fork.state != ForkState::Dropping) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("database \"{name}\" is not a fork")
        );
    };
    let state = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    if fork.state == ForkState::Invalid {
        let message = format!("fork \"{name}\" is invalid: {}", fork.reason());
        refuse(state, message, "Drop it with fork_drop.");
    }
    if pending::created_here(oid) {
        let message = format!("fork \"{name}\" is not committed yet");
        refuse(
            state,
            message,
            "Commit the transaction that creates it first.",
        );
    }
    refuse_closed(oid, name);
    // SAFETY: a look-up.
    let may_connect = unsafe {
        let acl = pg_sys::ACL_CONNECT as pg_sys::AclMode;
        pg_sys::pg_database_aclcheck(oid.into(), pg_sys::GetUserId(), acl)
    };
    if may_connect != pg_sys::AclResult::ACLCHECK_OK {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for database \"{name}\""),
            "User does not have CONNECT privilege."
        );
    }
    fork
}

/// Raises 55000 if the database lets nobody in, as a login does (postinit.c, `CheckMyDatabase`).
fn refuse_closed(oid: u32, name: &str) {
    let state = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let Some(row) = catalog::cached_row(oid) else {
        return;
    };
    if row.datconnlimit == pg_sys::DATCONNLIMIT_INVALID_DB {
        let message = format!("cannot look into invalid database \"{name}\"");
        refuse(state, message, "Use fork_drop to drop it.");
    }
    if !row.datallowconn {
        let message = format!("database \"{name}\" is not currently accepting connections");
        refuse(
            state,
            message,
            "ALTER DATABASE … ALLOW_CONNECTIONS opens it.",
        );
    }
}

/// An error that the worker reported, or that befell it. To be raised where nothing is left to drop.
#[must_use]
pub struct Failure(*mut pg_sys::ErrorData);

impl Failure {
    /// Raises it, with all of its fields. Past pgrx's guards, which would lose its context.
    pub fn raise(self) -> ! {
        // SAFETY: palloc'd error data; the callers' frames have nothing to drop.
        unsafe { raw::ThrowErrorData(self.0) };
        unreachable!()
    }
}

/// A worker in a fork, from its start to its end.
pub struct Call {
    name: String,
    /// The fork's, in which the worker tells of errors.
    encoding: i32,
    segment: *mut pg_sys::dsm_segment,
    worker: *mut pg_sys::BackgroundWorkerHandle,
    requests: *mut pg_sys::shm_mq_handle,
    replies: *mut pg_sys::shm_mq_handle,
}

/// The role to log in as: the caller, or if that is one that may not log in, the session's own.
fn login_role(user: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a row of the catalog cache.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
        let row = pg_sys::SearchSysCache1(cache, user.into());
        if row.is_null() {
            return user;
        }
        let form = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_authid>(row);
        let may = (*form).rolcanlogin;
        pg_sys::ReleaseSysCache(row);
        if may {
            user
        } else {
            pg_sys::GetSessionUserId()
        }
    }
}

/// Whatever ends the call, the shared memory goes with it; and then the worker, whatever it does.
#[pg_guard]
unsafe extern "C-unwind" fn end_worker(_segment: *mut pg_sys::dsm_segment, worker: pg_sys::Datum) {
    // SAFETY: allocated for the session, freed here or in `finish`.
    unsafe {
        let worker = worker.cast_mut_ptr::<pg_sys::BackgroundWorkerHandle>();
        pg_sys::TerminateBackgroundWorker(worker);
        pg_sys::pfree(worker.cast());
    }
}

fn put_text(into: &mut [c_char], text: &str) {
    for (to, from) in into.iter_mut().zip(text.bytes().take(90)) {
        *to = from as c_char;
    }
}

impl Call {
    /// Starts a worker in the fork, with the rights of the current user.
    ///
    /// Raises 53400 if no background worker is free.
    pub fn begin(fork: &Slot) -> Self {
        let name = catalog::database_name(fork.oid).unwrap_or_else(|| fork.name());
        // SAFETY: as other users of the machinery have it (test_shm_mq). The memory is the resource
        // owner's; an error from here on frees it, which ends the worker.
        unsafe {
            let user = pg_sys::GetUserId();
            let (segment, requests, replies) = queue::create(Header {
                database: fork.oid,
                login: login_role(user).to_u32(),
                user: user.to_u32(),
            });
            let mut worker = pg_sys::BackgroundWorker {
                bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS
                    | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION)
                    as i32,
                bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_ConsistentState,
                bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
                bgw_main_arg: pg_sys::Datum::from(pg_sys::dsm_segment_handle(segment)),
                bgw_notify_pid: pg_sys::MyProcPid,
                ..Default::default()
            };
            let caller = pg_sys::MyProcPid;
            let title = format!("pg_fork reader for {caller}");
            put_text(&mut worker.bgw_name, &title);
            put_text(&mut worker.bgw_type, "pg_fork reader");
            put_text(&mut worker.bgw_library_name, "pg_fork");
            put_text(&mut worker.bgw_function_name, "pg_fork_remote_main");
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let mut handle = std::ptr::null_mut();
            let started = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
            pg_sys::MemoryContextSwitchTo(context);
            if !started {
                refuse(
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    format!("no background worker is free to look into database \"{name}\""),
                    "Try again, or set max_worker_processes higher and restart the server.",
                );
            }
            pg_sys::on_dsm_detach(segment, Some(end_worker), pg_sys::Datum::from(handle));
            Call {
                name,
                encoding: catalog::encoding_of(fork.oid),
                segment,
                worker: handle,
                requests: pg_sys::shm_mq_attach(requests, segment, handle),
                replies: pg_sys::shm_mq_attach(replies, segment, handle),
            }
        }
    }

    /// Runs a query on one side, and calls `each` with its rows. All of a side's queries see the same
    /// state.
    pub fn query(
        &mut self,
        side: Side,
        query: &str,
        each: impl FnMut(Columns),
    ) -> Result<(), Failure> {
        self.run(side, Job::Sql, query.as_bytes(), each)
    }

    /// Runs a job on one side, and calls `each` with its rows.
    pub fn run(
        &mut self,
        side: Side,
        job: Job,
        arguments: &[u8],
        mut each: impl FnMut(Columns),
    ) -> Result<(), Failure> {
        self.ask(side, job, arguments);
        while let Some(row) = self.next_row()? {
            each(row);
        }
        Ok(())
    }

    /// Asks for a job on one side. All of its rows are to be taken before the next is asked for.
    pub fn ask(&mut self, side: Side, job: Job, arguments: &[u8]) {
        let arguments = arguments.to_vec();
        let request = Request {
            side,
            job,
            arguments,
        };
        let bytes = request.encode();
        // A long query does not fit into the queue before the worker reads, and the worker may have to wait.
        // SAFETY: our queue; the same bytes until they are sent. If nobody listens any more, the other queue
        // says why.
        while unsafe {
            let (len, at) = (bytes.len(), bytes.as_ptr().cast());
            pg_sys::shm_mq_send(self.requests, len, at, true, true)
        } == pg_sys::shm_mq_result::SHM_MQ_WOULD_BLOCK
        {
            self.wait();
        }
    }

    /// The next row of the job that was asked for; `None` after the last.
    pub fn next_row(&mut self) -> Result<Option<Columns>, Failure> {
        loop {
            let Some((kind, message)) = self.receive() else {
                return Err(self.lost());
            };
            match kind {
                wire::ROW => return Ok(Some(wire::decode_row(message).unwrap_or_default())),
                wire::DONE => return Ok(None),
                b'E' => return Err(Failure(self.parse(message))),
                // SAFETY: a notice goes on to the client.
                b'N' => unsafe { pg_sys::ThrowErrorData(self.parse(message)) },
                _ => {}
            }
        }
    }

    /// The next message; `None` if the worker is gone.
    fn receive<'a>(&self) -> Option<(u8, &'a [u8])> {
        let (mut len, mut data) = (0, std::ptr::null_mut());
        // SAFETY: our queue, and this process's own latch; the bytes are good until the next call.
        let message = unsafe {
            loop {
                let result = pg_sys::shm_mq_receive(self.replies, &mut len, &mut data, true);
                match result {
                    pg_sys::shm_mq_result::SHM_MQ_SUCCESS => break,
                    pg_sys::shm_mq_result::SHM_MQ_DETACHED => return None,
                    _ => {}
                }
                self.wait();
            }
            std::slice::from_raw_parts(data.cast::<u8>(), len)
        };
        message.split_first().map(|(kind, rest)| (*kind, rest))
    }

    /// Waits until the worker has done something, or a second.
    fn wait(&self) {
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: this process's own latch.
        let woken = unsafe {
            let wait = pg_sys::PG_WAIT_EXTENSION;
            let woken = pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, 1000, wait);
            pg_sys::ResetLatch(pg_sys::MyLatch);
            woken
        };
        pgrx::check_for_interrupts!();
        if woken as u32 & pg_sys::WL_LATCH_SET == 0 {
            self.refuse_to_wait_for_itself();
        }
    }

    /// Raises 40P01 if the worker waits for a lock of this session's, which waits for the worker: no
    /// deadlock check sees that.
    fn refuse_to_wait_for_itself(&self) {
        let mut pid = 0;
        // SAFETY: our worker; pg_blocking_pids(pid) (lockfuncs.c).
        let (blockers, me) = unsafe {
            if pg_sys::GetBackgroundWorkerPid(self.worker, &mut pid)
                != pg_sys::BgwHandleStatus::BGWH_STARTED
            {
                return;
            }
            let pid = Some(pg_sys::Datum::from(pid));
            let found = pgrx::direct_function_call::<Vec<i32>>(pg_sys::pg_blocking_pids, &[pid]);
            (found.unwrap_or_default(), pg_sys::MyProcPid)
        };
        if blockers.contains(&me) {
            refuse(
                PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED,
                format!(
                    "cannot look into database \"{}\": this session has locked what is there",
                    self.name
                ),
                "Commit or roll back the transaction first.",
            );
        }
    }

    /// The error data of a message. A worker's end is an error of the call, and no more (parallel.c,
    /// `HandleParallelMessage`).
    fn parse(&self, message: &[u8]) -> *mut pg_sys::ErrorData {
        // SAFETY: a copy of the message with a zero byte behind it, as StringInfos have.
        unsafe {
            let mut text = pg_sys::StringInfoData::default();
            pg_sys::initStringInfo(&mut text);
            let len = message.len() as i32;
            pg_sys::appendBinaryStringInfo(&mut text, message.as_ptr().cast(), len);
            let error = pg_sys::palloc0(size_of::<pg_sys::ErrorData>()).cast::<pg_sys::ErrorData>();
            queue::pq_parse_errornotice(&mut text, error);
            said::convert(&mut *error, self.encoding);
            if (*error).elevel > PgLogLevel::ERROR as i32 {
                (*error).elevel = PgLogLevel::ERROR as i32;
            }
            // To a client, this code says that its own session is over.
            if (*error).sqlerrcode == PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN as i32 {
                (*error).sqlerrcode = PgSqlErrorCode::ERRCODE_OPERATOR_INTERVENTION as i32;
            }
            self.add_context(error);
            error
        }
    }

    /// What is told of a worker that is gone without a word.
    fn lost(&self) -> Failure {
        // SAFETY: zeroed error data is whole but for these.
        unsafe {
            let error = pg_sys::palloc0(size_of::<pg_sys::ErrorData>()).cast::<pg_sys::ErrorData>();
            (*error).elevel = PgLogLevel::ERROR as i32;
            (*error).sqlerrcode = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE as i32;
            (*error).message =
                pg_sys::pstrdup(c"lost connection to the background worker".as_ptr());
            (*error).hint = pg_sys::pstrdup(c"The server's log may say more.".as_ptr());
            (*error).assoc_context = pg_sys::CurrentMemoryContext;
            self.add_context(error);
            Failure(error)
        }
    }

    unsafe fn add_context(&self, error: *mut pg_sys::ErrorData) {
        // SAFETY: the error's own fields; what is put in is palloc'd.
        unsafe {
            let mut context = format!("in database \"{}\"", self.name);
            if !(*error).context.is_null() {
                let before = CStr::from_ptr((*error).context).to_string_lossy();
                context = format!("{before}\n{context}");
            }
            if let Ok(context) = CString::new(context) {
                (*error).context = pg_sys::pstrdup(context.as_ptr());
            }
        }
    }

    /// Lets the worker go, and waits until it has left the fork.
    pub fn finish(self) {
        // SAFETY: what `begin` made. It ends by itself once nobody asks any more.
        unsafe {
            let worker = pg_sys::Datum::from(self.worker);
            pg_sys::cancel_on_dsm_detach(self.segment, Some(end_worker), worker);
            pg_sys::dsm_detach(self.segment);
            pg_sys::WaitForBackgroundWorkerShutdown(self.worker);
            pg_sys::pfree(self.worker.cast());
        }
    }
}
