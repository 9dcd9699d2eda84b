-- Every object of this database that is a user's, or that a user may have changed: what it is, its definition,
-- the extension that it came with, and what is compared but not shown. All names are qualified. Looks at
-- catalogs only, and calls no function of a user's. `:pg_proc` and the like are the first OID to look at: that of
-- the first user's object, or 1 where the server's own are not as they were either.
WITH RECURSIVE member AS MATERIALIZED (
    SELECT d.classid, d.objid, quote_ident(e.extname) AS extension
    FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
), part (classid, objid, relation) AS MATERIALIZED ( -- what goes with a relation
    SELECT 'pg_class'::regclass, indexrelid, indrelid FROM pg_index
  UNION ALL
    SELECT 'pg_constraint'::regclass, oid, conrelid FROM pg_constraint WHERE conrelid <> 0
  UNION ALL
    SELECT 'pg_trigger'::regclass, oid, tgrelid FROM pg_trigger
  UNION ALL
    SELECT 'pg_rewrite'::regclass, oid, ev_class FROM pg_rewrite
  UNION ALL
    SELECT 'pg_policy'::regclass, oid, polrelid FROM pg_policy
  UNION ALL
    SELECT 'pg_statistic_ext'::regclass, oid, stxrelid FROM pg_statistic_ext
  UNION ALL
    SELECT 'pg_type'::regclass, oid, typrelid FROM pg_type WHERE typrelid <> 0
), home AS MATERIALIZED ( -- by extension, its members and their parts. Policies are a user's
    SELECT classid, objid, extension FROM member
  UNION
    SELECT p.classid, p.objid, m.extension
    FROM part p JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = p.relation
    WHERE p.classid <> 'pg_policy'::regclass
      AND NOT EXISTS (SELECT FROM member o WHERE o.classid = p.classid AND o.objid = p.objid)
  UNION
    SELECT 'pg_constraint'::regclass, k.oid, m.extension
    FROM pg_constraint k JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = k.contypid
), passing AS MATERIALIZED ( -- temporary relations, and their parts
    SELECT 'pg_class'::regclass AS classid, oid AS objid FROM pg_class WHERE relpersistence = 't'
  UNION
    SELECT p.classid, p.objid FROM part p JOIN pg_class c ON c.oid = p.relation WHERE c.relpersistence = 't'
), needed AS MATERIALIZED ( -- without being their members
    SELECT d.classid, d.objid, string_agg(quote_ident(e.extname), ', ' ORDER BY e.extname) AS extensions
    FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
    WHERE d.deptype = 'x' AND d.refclassid = 'pg_extension'::regclass GROUP BY d.classid, d.objid
), ns AS (
    SELECT oid, quote_ident(nspname) AS name FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)'
), rel AS MATERIALIZED (
    SELECT c.*, c.oid::regclass::text AS name FROM pg_class c JOIN ns ON ns.oid = c.relnamespace
    WHERE c.oid >= :pg_class AND c.relpersistence <> 't'
), family (root, oid) AS ( -- a foreign key, and what it is on partitions
    SELECT oid, oid FROM pg_constraint WHERE conparentid = 0 OR contype <> 'f'
  UNION ALL
    SELECT f.root, k.oid FROM family f JOIN pg_constraint k ON k.conparentid = f.oid AND k.contype = 'f'
), switched AS MATERIALIZED ( -- triggers that do a constraint's work, and do not do it as ever
    SELECT f.root, string_agg(DISTINCT concat_ws(' ', CASE g.tgenabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ENABLED REPLICA'
               WHEN 'A' THEN 'ENABLED ALWAYS' END, 'ON', concat_ws(' OR ', CASE WHEN g.tgtype & 4 <> 0 THEN 'INSERT' END,
               CASE WHEN g.tgtype & 8 <> 0 THEN 'DELETE' END, CASE WHEN g.tgtype & 16 <> 0 THEN 'UPDATE' END), 'OF', g.tgrelid::regclass),
               ', ') AS triggers
    FROM pg_trigger g JOIN family f ON f.oid = g.tgconstraint WHERE g.tgisinternal AND g.tgenabled <> 'O' GROUP BY f.root
