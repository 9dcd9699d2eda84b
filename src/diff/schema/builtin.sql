-- Whether the server's own objects are as they were: a digest of each catalog's rows of them, so that thousands
-- of definitions need not be printed. And digests of large objects, by 4096 numbers, as there may be millions.
-- What statistics, VACUUM and REINDEX change is not in them.
SELECT 'pg_namespace', NULL::bigint, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_namespace o
    WHERE o.oid < 16384 AND o.nspname !~ '^pg_(toast|temp)'
UNION ALL
SELECT 'pg_proc', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)
    || (SELECT string_agg(a::text, '' ORDER BY a.aggfnoid::oid) FROM pg_aggregate a WHERE a.aggfnoid::oid < 16384))
    FROM pg_proc o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_type', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)
    || coalesce((SELECT string_agg(a::text, '' ORDER BY a.rngtypid) FROM pg_range a WHERE a.rngtypid < 16384), '')
    || coalesce((SELECT string_agg(a::text, '' ORDER BY a.oid) FROM pg_enum a WHERE a.enumtypid < 16384), '')
    || coalesce((SELECT string_agg(a::text, '' ORDER BY a.oid) FROM pg_constraint a WHERE a.contypid BETWEEN 1 AND 16383), ''))
    FROM pg_type o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_collation', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_collation o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_conversion', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_conversion o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_operator', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_operator o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_opfamily', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)
    || (SELECT string_agg(a::text, '' ORDER BY a.oid) FROM pg_amop a WHERE a.amopfamily < 16384)
    || (SELECT string_agg(a::text, '' ORDER BY a.oid) FROM pg_amproc a WHERE a.amprocfamily < 16384))
    FROM pg_opfamily o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_opclass', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_opclass o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_am', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_am o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_cast', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_cast o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_language', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_language o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_ts_config', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)
    || (SELECT string_agg(a::text, '' ORDER BY a.mapcfg, a.maptokentype, a.mapseqno) FROM pg_ts_config_map a WHERE a.mapcfg < 16384))
    FROM pg_ts_config o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_ts_dict', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_ts_dict o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_ts_parser', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_ts_parser o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_ts_template', NULL, md5(string_agg(o::text, '' ORDER BY o.oid)) FROM pg_ts_template o WHERE o.oid < 16384
UNION ALL
SELECT 'pg_description', NULL, md5(string_agg(o::text, '' ORDER BY o.objoid, o.classoid, o.objsubid)) FROM pg_description o
    WHERE o.objoid < 16384 AND o.classoid <> 'pg_largeobject'::regclass
UNION ALL
SELECT 'pg_class', NULL, md5(string_agg(o.line, '' ORDER BY o.kind, o.a, o.b)) FROM (
    SELECT 1, c.oid, 0, row(c.relname, c.relnamespace, c.reloftype, c.relowner, c.relam, c.reltablespace, c.relpersistence, c.relkind,
           c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relispartition, c.reloptions,
           (SELECT t.reloptions FROM pg_class t WHERE t.oid = c.reltoastrelid))::text
    FROM pg_class c WHERE c.oid < 16384 AND c.relnamespace <> 'pg_toast'::regnamespace
  UNION ALL
    SELECT 2, a.attrelid, a.attnum, row(a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attnotnull, a.attidentity, a.attgenerated,
           a.attstorage, a.attcompression, a.attstattarget, a.attoptions, a.attfdwoptions, a.attinhcount, a.attislocal,
           (SELECT d.adbin FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum))::text
    FROM pg_attribute a WHERE a.attrelid < 16384
  UNION ALL
    SELECT 3, i.indexrelid, 0, row(i.indrelid, i.indisclustered, i.indisvalid, i.indisready, i.indislive, i.indisreplident)::text
    FROM pg_index i WHERE i.indrelid < 16384
  UNION ALL
    SELECT 4, o.oid, 0, o::text FROM pg_constraint o WHERE o.conrelid BETWEEN 1 AND 16383
  UNION ALL
    SELECT 5, o.oid, 0, o::text FROM pg_trigger o WHERE o.tgrelid < 16384
  UNION ALL
    SELECT 6, o.oid, 0, o::text FROM pg_rewrite o WHERE o.ev_class < 16384
  UNION ALL
    SELECT 7, o.oid, 0, o::text FROM pg_policy o WHERE o.polrelid < 16384
  UNION ALL
    SELECT 8, o.oid, 0, row(o.stxname, o.stxnamespace, o.stxowner, o.stxstattarget, o.stxkeys, o.stxkind, o.stxexprs)::text
    FROM pg_statistic_ext o WHERE o.stxrelid < 16384
  UNION ALL
    SELECT 9, o.inhrelid, o.inhseqno, o::text FROM pg_inherits o WHERE o.inhparent < 16384
) AS o (kind, a, b, line)
UNION ALL
SELECT 'pg_largeobject', l.oid::bigint / 4096, md5(string_agg(row(l.oid, l.lomowner, l.lomacl, d.description,
           (SELECT string_agg(s::text, '' ORDER BY s.provider) FROM pg_seclabel s
            WHERE s.classoid = 'pg_largeobject'::regclass AND s.objoid = l.oid))::text, '' ORDER BY l.oid))
    FROM pg_largeobject_metadata l
    LEFT JOIN pg_description d ON d.classoid = 'pg_largeobject'::regclass AND d.objoid = l.oid
    GROUP BY 2
