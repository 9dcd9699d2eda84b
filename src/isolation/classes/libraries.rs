//! Functions of C libraries: what may be called in a fork, by the library's name and the function's name in C.
//!
//! The libraries of PostgreSQL's own packages are all here, and of others those that are known to reach out
//! of a database or known not to. The functions of a library that is not here may be called, but for those
//! that are volatile and whose names look like ways out ([`looks_outward`]).

/// What of a library may be called in a fork.
pub struct Library {
    /// The file's name, without its path, `.so` and version.
    pub name: &'static str,
    pub rest: Rest,
    /// Functions that may be called all the same.
    pub own: &'static [&'static str],
    /// Functions that may not.
    pub refused: &'static [&'static str],
}

/// What holds for the functions of a library that are in neither of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They may be called: it keeps no state but the database's, and talks to nobody.
    Own,
    /// They may not, unless they are immutable: reaching out is what it is for. Nor may functions in its
    /// language, if it is one's.
    Refused,
    /// Those that are volatile may not: each of them has to be looked at, also what a new version brings.
    Neither,
}

/// A function, as pg_proc has it.
pub struct Function<'a> {
    /// The file, as it stands in `probin`.
    pub file: &'a str,
    /// Its names in C and in SQL.
    pub symbol: &'a str,
    pub name: &'a str,
    pub volatile: bool,
    pub immutable: bool,
}

/// Whether the function may be called in a fork.
pub fn may_be_called(function: &Function) -> bool {
    let Some(library) = library(function.file) else {
        let outward = looks_outward(function.symbol) || looks_outward(function.name);
        return !(function.volatile && outward);
    };
    if library.own.contains(&function.symbol) {
        return true;
    }
    let listed = library.refused.contains(&function.symbol);
    !listed
        && match library.rest {
            Rest::Own => true,
            Rest::Refused => function.immutable,
            Rest::Neither => !function.volatile,
        }
}

/// Whether functions in a language may be called in a fork whose handler is in this file.
pub fn language_may_be_called(file: &str) -> bool {
    library(file).is_none_or(|library| library.rest != Rest::Refused)
}

/// The library's name: `$libdir/postgis-3` is postgis.
pub fn name_of(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.strip_suffix(".so").unwrap_or(name);
    match name.rsplit_once('-') {
        Some((before, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => {
            before
        }
        _ => name,
    }
}

/// The library that a file is, if it is known.
pub fn library(file: &str) -> Option<&'static Library> {
    let name = name_of(file);
    LIBRARIES.iter().find(|library| library.name == name)
}

/// Words that stand in the names of functions which reset what databases share, run programs, touch files,
/// talk to others, or steer processes.
const OUTWARD: &[&str] = &[
    "cancel",
    "connect",
    "connection",
    "cron",
    "curl",
    "email",
    "evict",
    "exec",
    "execute",
    "file",
    "files",
    "http",
    "https",
    "kill",
    "launch",
    "listen",
    "mail",
    "pipe",
    "program",
    "publish",
    "reload",
    "replication",
    "request",
    "reset",
    "restart",
    "rotate",
    "schedule",
    "shell",
    "signal",
    "slot",
    "socket",
    "subscription",
    "system",
    "terminate",
    "unlink",
    "upload",
    "wal",
    "webhook",
    "worker",
    "workers",
];

/// Whether a name has such a word in it: `pg_stat_monitor_reset`, `httpGet`.
pub fn looks_outward(name: &str) -> bool {
    let mut words = Vec::new();
    for part in name.split(|c: char| !c.is_ascii_alphabetic()) {
        // Where a capital letter follows a small one, too.
        let mut from = 0;
        for at in 1..part.len() {
            let pair = &part.as_bytes()[at - 1..=at];
            if pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase() {
                words.push(part[from..at].to_ascii_lowercase());
                from = at;
            }
        }
        words.push(part[from..].to_ascii_lowercase());
    }
    words.iter().any(|word| OUTWARD.contains(&word.as_str()))
}

const NONE: &[&str] = &[];

const fn own(name: &'static str) -> Library {
    but(name, NONE)
}

const fn but(name: &'static str, refused: &'static [&'static str]) -> Library {
    Library {
        name,
        rest: Rest::Own,
        own: NONE,
        refused,
    }
}

const fn refused(name: &'static str, own: &'static [&'static str]) -> Library {
    Library {
        name,
        rest: Rest::Refused,
        own,
        refused: NONE,
    }
}

const fn each(
    name: &'static str,
    own: &'static [&'static str],
    refused: &'static [&'static str],
) -> Library {
    Library {
        name,
        rest: Rest::Neither,
        own,
        refused,
    }
}

#[rustfmt::skip]
pub const LIBRARIES: &[Library] = &[
    // PostgreSQL's own packages: types, operators, indexes, dictionaries, triggers.
    own("_int"), own("autoinc"), own("bloom"), own("btree_gin"), own("btree_gist"), own("citext"), own("cube"),
    own("dict_int"), own("dict_snowball"), own("dict_xsyn"), own("earthdistance"), own("fuzzystrmatch"),
    own("hstore"), own("hstore_plperl"), own("hstore_plpython3"), own("insert_username"), own("isn"),
    own("jsonb_plperl"), own("jsonb_plpython3"), own("lo"), own("ltree"), own("ltree_plpython3"),
    own("moddatetime"), own("pg_trgm"), own("pgcrypto"), own("refint"), own("seg"), own("sslinfo"),
    own("tablefunc"), own("tcn"), own("tsm_system_rows"), own("tsm_system_time"), own("unaccent"),
    own("uuid-ossp"),
    // Conversions between encodings.
    own("cyrillic_and_mic"), own("euc2004_sjis2004"), own("euc_cn_and_mic"), own("euc_jp_and_sjis"),
    own("euc_kr_and_mic"), own("euc_tw_and_big5"), own("latin2_and_win1250"), own("latin_and_mic"),
    own("utf8_and_big5"), own("utf8_and_cyrillic"), own("utf8_and_euc2004"), own("utf8_and_euc_cn"),
    own("utf8_and_euc_jp"), own("utf8_and_euc_kr"), own("utf8_and_euc_tw"), own("utf8_and_gb18030"),
    own("utf8_and_gbk"), own("utf8_and_iso8859"), own("utf8_and_iso8859_1"), own("utf8_and_johab"),
    own("utf8_and_sjis"), own("utf8_and_sjis2004"), own("utf8_and_uhc"), own("utf8_and_win"),
    // Languages: what untrusted ones could do was there at the cut (`statements` refuses new functions).
    own("plperl"), own("plpgsql"), own("plpython3"), own("pltcl"),
    // Nothing that SQL calls: hooks, output plugins, archivers, the server's own parts.
    each("auth_delay", NONE, NONE), each("auto_explain", NONE, NONE),
    each("basebackup_to_shell", NONE, NONE), each("basic_archive", NONE, NONE),
    each("libpqwalreceiver", NONE, NONE), each("llvmjit", NONE, NONE), each("passwordcheck", NONE, NONE),
    each("pgoutput", NONE, NONE), each("test_decoding", NONE, NONE),
    // They read, or write what is the database's.
    each("amcheck", &["bt_index_check", "bt_index_parent_check", "verify_heapam"], NONE),
    each("old_snapshot", &["pg_old_snapshot_time_mapping"], NONE),
    each("pageinspect", &[
        "brin_metapage_info", "brin_page_items", "brin_page_type", "brin_revmap_data", "bt_metap",
        "bt_page_items_1_9", "bt_page_items_bytea", "bt_page_stats_1_9", "fsm_page_contents",
        "get_raw_page_1_9", "get_raw_page_fork_1_9", "gin_leafpage_items", "gin_metapage_info",
        "gin_page_opaque_info", "gist_page_items", "gist_page_items_bytea", "gist_page_opaque_info",
        "hash_bitmap_info", "hash_metapage_info", "hash_page_items", "hash_page_stats", "hash_page_type",
        "heap_page_items", "heap_tuple_infomask_flags", "page_checksum_1_9", "page_header",
        "tuple_data_split",
        // Of older versions of the extension.
        "bt_page_items", "bt_page_stats", "get_raw_page", "get_raw_page_fork", "page_checksum",
    ], NONE),
    each("pg_buffercache", &["pg_buffercache_pages"], NONE),
    each("pg_freespacemap", &["pg_freespace"], NONE),
    each("pg_surgery", &["heap_force_freeze", "heap_force_kill"], NONE),
    each("pg_visibility", &[
        "pg_check_frozen", "pg_check_visible", "pg_truncate_visibility_map", "pg_visibility",
        "pg_visibility_map", "pg_visibility_map_rel", "pg_visibility_map_summary", "pg_visibility_rel",
    ], NONE),
    each("pg_walinspect", &[
        "pg_get_wal_record_info", "pg_get_wal_records_info", "pg_get_wal_records_info_till_end_of_wal",
        "pg_get_wal_stats", "pg_get_wal_stats_till_end_of_wal",
    ], NONE),
    each("pgrowlocks", &["pgrowlocks"], NONE),
    each("pgstattuple", &[
        "pg_relpages_v1_5", "pg_relpagesbyid_v1_5", "pgstatginindex_v1_5", "pgstathashindex",
        "pgstatindex_v1_5", "pgstatindexbyid_v1_5", "pgstattuple_approx_v1_5", "pgstattuple_v1_5",
        "pgstattuplebyid_v1_5",
        // Of older versions of the extension.
        "pg_relpages", "pg_relpagesbyid", "pgstatginindex", "pgstatindex", "pgstatindexbyid", "pgstattuple",
        "pgstattuple_approx", "pgstattuplebyid",
    ], NONE),
    each("pgxml", &["xslt_process"], NONE),
    // Foreign tables: `writes` and `programs` look at what is done with them.
    each("file_fdw", &["file_fdw_handler", "file_fdw_validator"], NONE),
    each("postgres_fdw", &[
        "postgres_fdw_disconnect", "postgres_fdw_disconnect_all", "postgres_fdw_get_connections",
        "postgres_fdw_handler", "postgres_fdw_validator",
    ], NONE),
    // What they keep is the server's.
    each("pg_prewarm", &["pg_prewarm"], &["autoprewarm_dump_now", "autoprewarm_start_worker"]),
    each("pg_stat_statements", &[
        "pg_stat_statements", "pg_stat_statements_1_2", "pg_stat_statements_1_3", "pg_stat_statements_1_8",
        "pg_stat_statements_1_9", "pg_stat_statements_1_10", "pg_stat_statements_info",
    ], &["pg_stat_statements_reset", "pg_stat_statements_reset_1_7"]),
    each("sepgsql", &["sepgsql_getcon", "sepgsql_setcon"], &["sepgsql_restorecon"]),
    refused("adminpack", NONE),
    refused("dblink", &["dblink_fdw_validator"]),

    // pg_fork's own functions ask for rights themselves.
    own("pg_fork"),

    // Of other packages: those that are known to stay in.
    own("address_standardizer"), own("age"), own("h3"), own("h3_postgis"), own("hll"), own("hypopg"),
    own("ip4r"), own("libpgrouting"), own("ltree_plperl"), own("orioledb"), own("periods"), own("pg_dirtyread"),
    own("pg_hint_plan"), own("pg_ivm"), own("pg_partman_bgw"), own("pg_repack"), own("pg_similarity"), own("pgaudit"),
    own("pgl_ddl_deploy"), own("pgq_lowlevel"), own("pgq_triggers"), own("plr"), own("plv8"), own("pointcloud"), own("powa"),
    own("postgis"), own("postgis_raster"), own("postgis_sfcgal"), own("postgis_topology"), own("prefix"),
    own("q3c"), own("rdkit"), own("rum"), own("semver"), own("temporal_tables"), own("vchord"), own("vector"),
    own("wal2json"), own("set_user"),

    // Jobs, queues and processes of the server.
    refused("pg_background", NONE), refused("pg_cron", &["cron_job_cache_invalidate"]),
    refused("pg_squeeze", NONE), refused("pg_task", NONE), refused("plugin_debugger", NONE),
    refused("prioritize", NONE),
    // Replication, other servers. Event triggers may run.
    each("pglogical", &[
        "pglogical_max_proto_version", "pglogical_min_proto_version", "pglogical_queue_truncate",
        "pglogical_version", "pglogical_version_num", "pglogical_xact_commit_timestamp_origin",
    ], NONE),
    each("pglogical_output", NONE, NONE),
    refused("pgpool-recovery", NONE), refused("pgpool_adm", NONE), refused("repmgr", NONE),
    refused("plproxy", &["plproxy_fdw_validator", "plproxy_validator"]),
    but("oracle_fdw", &["oracle_execute"]),
    // Programs, files, the network.
    refused("aws_commons", NONE), refused("aws_lambda", NONE), refused("aws_s3", NONE),
    refused("azure_storage", NONE), refused("http", NONE),
    refused("pg_amqp", NONE), refused("pg_bulkload", NONE), refused("pg_curl", NONE), refused("pg_net", NONE),
    refused("pgmemcache", NONE), refused("plsh", &["plsh_validator"]),
    but("orafce", &[
        "utl_file_fclose", "utl_file_fclose_all", "utl_file_fcopy", "utl_file_fflush", "utl_file_fgetattr",
        "utl_file_fopen", "utl_file_fremove", "utl_file_frename", "utl_file_get_line",
        "utl_file_get_nextline", "utl_file_is_open", "utl_file_new_line", "utl_file_put",
        "utl_file_put_line", "utl_file_putf", "utl_file_tmpdir",
        // Pipes and alerts are those of all databases.
        "dbms_alert_defered_signal", "dbms_alert_register", "dbms_alert_remove", "dbms_alert_removeall",
        "dbms_alert_signal", "dbms_alert_waitany", "dbms_alert_waitone",
        "dbms_pipe_create_pipe", "dbms_pipe_create_pipe_1",
        "dbms_pipe_create_pipe_2", "dbms_pipe_purge", "dbms_pipe_receive_message",
        "dbms_pipe_remove_pipe", "dbms_pipe_send_message",
    ]),
    // Statistics that all databases share.
    but("pg_qualstats", &["pg_qualstats_reset"]),
    but("pg_stat_kcache", &["pg_stat_kcache_reset"]),
    but("pg_stat_monitor", &["pg_stat_monitor_reset"]),
    but("pg_wait_sampling", &["pg_wait_sampling_reset_profile"]),
    but("plpgsql_check", &["plpgsql_profiler_reset_all"]),
    // Which sessions are watched, too.
    but("plprofiler", &[
        "pl_profiler_reset_shared", "pl_profiler_set_collect_interval", "pl_profiler_set_enabled_global",
        "pl_profiler_set_enabled_pid",
    ]),
];
