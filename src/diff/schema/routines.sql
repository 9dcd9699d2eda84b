  UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, concat_ws(' ', CASE WHEN p.prokind <> 'a' THEN rtrim(pg_get_functiondef(p.oid), chr(10)) ELSE
           (SELECT concat_ws(' ', 'CREATE AGGREGATE', format('%s.%I(%s)', ns.name, p.proname, coalesce(nullif(pg_get_function_arguments(p.oid), ''), '*')),
                'SFUNC', nullif(a.aggtransfn, 0)::regprocedure, 'STYPE', format_type(a.aggtranstype, NULL), 'SSPACE ' || nullif(a.aggtransspace, 0),
                'FINALFUNC ' || nullif(a.aggfinalfn, 0)::regprocedure, CASE WHEN a.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
                'FINALFUNC_MODIFY ' || nullif(a.aggfinalmodify::text, 'r'), 'COMBINEFUNC ' || nullif(a.aggcombinefn, 0)::regprocedure,
                'SERIALFUNC ' || nullif(a.aggserialfn, 0)::regprocedure, 'DESERIALFUNC ' || nullif(a.aggdeserialfn, 0)::regprocedure,
                'INITCOND ' || quote_literal(a.agginitval), 'MSFUNC ' || nullif(a.aggmtransfn, 0)::regprocedure,
                'MINVFUNC ' || nullif(a.aggminvtransfn, 0)::regprocedure, 'MSTYPE ' || format_type(nullif(a.aggmtranstype, 0), NULL),
                'MSSPACE ' || nullif(a.aggmtransspace, 0), 'MFINALFUNC ' || nullif(a.aggmfinalfn, 0)::regprocedure,
                CASE WHEN a.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END, 'MFINALFUNC_MODIFY ' || nullif(a.aggmfinalmodify::text, 'r'),
                'MINITCOND ' || quote_literal(a.aggminitval),
                'SORTOP ' || nullif(a.aggsortop, 0)::regoperator, 'DIRECT ' || nullif(a.aggnumdirectargs, 0), 'KIND ' || nullif(a.aggkind::text, 'n'), 'PARALLEL ' || p.proparallel::text)
            FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END, 'OWNER TO ' || p.proowner::regrole), NULL
    FROM pg_proc p JOIN ns ON ns.oid = p.pronamespace
    WHERE p.oid >= :pg_proc AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
  UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, concat_ws(' ', 'TYPE', format_type(t.oid, NULL), CASE t.typtype
           WHEN 'e' THEN 'AS ENUM (' || (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid) || ')'
           WHEN 'c' THEN 'AS (' || (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                CASE WHEN a.attcollation <> 0 AND a.attcollation <> b.typcollation THEN 'COLLATE ' || a.attcollation::regcollation END), ', ' ORDER BY a.attnum)
                FROM pg_attribute a JOIN pg_type b ON b.oid = a.atttypid WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) || ')'
           WHEN 'd' THEN concat_ws(' ', 'AS DOMAIN', format_type(t.typbasetype, t.typtypmod),
                CASE WHEN t.typcollation <> 0 THEN 'COLLATE ' || t.typcollation::regcollation END, CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                'DEFAULT ' || pg_get_expr(t.typdefaultbin, 0),
                (SELECT string_agg(format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ' ' ORDER BY k.conname)
                 FROM pg_constraint k WHERE k.contypid = t.oid))
           WHEN 'r' THEN (SELECT concat_ws(' ', 'AS RANGE', format_type(r.rngsubtype, NULL), 'COLLATE ' || nullif(r.rngcollation, 0)::regcollation,
                'OPCLASS ' || (pg_identify_object('pg_opclass'::regclass, r.rngsubopc, 0)).identity, 'CANONICAL ' || nullif(r.rngcanonical, 0)::regprocedure,
                'DIFF ' || nullif(r.rngsubdiff, 0)::regprocedure, 'MULTIRANGE ' || format_type(r.rngmultitypid, NULL))
                FROM pg_range r WHERE r.rngtypid = t.oid)
           WHEN 'b' THEN concat_ws(' ', 'INPUT', t.typinput::oid::regprocedure, 'OUTPUT', t.typoutput::oid::regprocedure,
                'RECEIVE ' || nullif(t.typreceive::oid, 0)::regprocedure, 'SEND ' || nullif(t.typsend::oid, 0)::regprocedure,
                'TYPMOD_IN ' || nullif(t.typmodin::oid, 0)::regprocedure, 'TYPMOD_OUT ' || nullif(t.typmodout::oid, 0)::regprocedure,
                'ANALYZE ' || nullif(t.typanalyze::oid, 0)::regprocedure, 'SUBSCRIPT ' || nullif(t.typsubscript::oid, 0)::regprocedure,
                'LENGTH', t.typlen, CASE WHEN t.typbyval THEN 'PASSEDBYVALUE' END, 'ALIGNMENT', t.typalign, 'STORAGE', t.typstorage,
                'CATEGORY', t.typcategory, CASE WHEN t.typispreferred THEN 'PREFERRED' END, 'DEFAULT ' || quote_literal(t.typdefault),
                'ELEMENT ' || nullif(t.typelem, 0)::regtype, 'DELIMITER', t.typdelim, CASE WHEN t.typcollation <> 0 THEN 'COLLATABLE' END)
           END, CASE WHEN NOT t.typisdefined THEN 'SHELL' END, 'OWNER TO ' || t.typowner::regrole), NULL
    FROM pg_type t JOIN ns ON ns.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE t.oid >= :pg_type AND (t.typrelid = 0 OR c.relkind = 'c') AND t.typtype <> 'm'
      AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  UNION ALL
    SELECT 'pg_collation'::regclass, l.oid, 0, concat_ws(' ', 'PROVIDER', l.collprovider, 'LC_COLLATE ' || l.collcollate, 'LC_CTYPE ' || l.collctype,
           'LOCALE ' || l.colliculocale, CASE WHEN NOT l.collisdeterministic THEN 'NOT DETERMINISTIC' END, 'VERSION ' || l.collversion,
           'ENCODING ' || nullif(l.collencoding, -1), 'OWNER TO ' || l.collowner::regrole), NULL
    FROM pg_collation l JOIN ns ON ns.oid = l.collnamespace WHERE l.oid >= :pg_collation
  UNION ALL
    SELECT 'pg_conversion'::regclass, v.oid, 0, concat_ws(' ', CASE WHEN v.condefault THEN 'DEFAULT' END, 'FOR', pg_encoding_to_char(v.conforencoding),
           'TO', pg_encoding_to_char(v.contoencoding), 'FROM', v.conproc::oid::regprocedure, 'OWNER TO ' || v.conowner::regrole), NULL
    FROM pg_conversion v JOIN ns ON ns.oid = v.connamespace WHERE v.oid >= :pg_conversion
  UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, 0, concat_ws(' ', 'FUNCTION', nullif(o.oprcode::oid, 0)::regprocedure, 'RETURNS', format_type(o.oprresult, NULL),
           'COMMUTATOR ' || nullif(o.oprcom, 0)::regoperator, 'NEGATOR ' || nullif(o.oprnegate, 0)::regoperator, 'RESTRICT ' || nullif(o.oprrest::oid, 0)::regprocedure,
           'JOIN ' || nullif(o.oprjoin::oid, 0)::regprocedure, CASE WHEN o.oprcanhash THEN 'HASHES' END, CASE WHEN o.oprcanmerge THEN 'MERGES' END,
           'OWNER TO ' || o.oprowner::regrole), NULL
    FROM pg_operator o JOIN ns ON ns.oid = o.oprnamespace WHERE o.oid >= :pg_operator
  UNION ALL
    SELECT 'pg_opfamily'::regclass, f.oid, 0, concat_ws(' ', 'OWNER TO', f.oprowner,
           (SELECT string_agg(format('OPERATOR %s (%s, %s) %s %s', a.amopstrategy, format_type(a.amoplefttype, NULL), format_type(a.amoprighttype, NULL), a.amopopr::regoperator,
               'ORDER BY ' || (pg_identify_object('pg_opfamily'::regclass, nullif(a.amopsortfamily, 0), 0)).identity), ' ' ORDER BY a.amopstrategy, a.amopopr::regoperator::text)
            FROM pg_amop a WHERE a.amopfamily = f.oid),
           (SELECT string_agg(format('FUNCTION %s (%s, %s) %s', a.amprocnum, format_type(a.amproclefttype, NULL), format_type(a.amprocrighttype, NULL), a.amproc::oid::regprocedure),
               ' ' ORDER BY a.amprocnum, format_type(a.amproclefttype, NULL), format_type(a.amprocrighttype, NULL)) FROM pg_amproc a WHERE a.amprocfamily = f.oid)), NULL
    FROM (SELECT o.oid, o.opfowner::regrole AS oprowner FROM pg_opfamily o JOIN ns ON ns.oid = o.opfnamespace WHERE o.oid >= :pg_opfamily) f
  UNION ALL
    SELECT 'pg_opclass'::regclass, o.oid, 0, concat_ws(' ', CASE WHEN o.opcdefault THEN 'DEFAULT' END, 'FOR TYPE', format_type(o.opcintype, NULL),
           'FAMILY', (pg_identify_object('pg_opfamily'::regclass, o.opcfamily, 0)).identity, 'STORAGE ' || format_type(nullif(o.opckeytype, 0), NULL), 'OWNER TO ' || o.opcowner::regrole), NULL
    FROM pg_opclass o JOIN ns ON ns.oid = o.opcnamespace WHERE o.oid >= :pg_opclass
  UNION ALL
    SELECT 'pg_am'::regclass, a.oid, 0, concat_ws(' ', 'TYPE', a.amtype, 'HANDLER', a.amhandler::oid::regprocedure), NULL FROM pg_am a WHERE a.oid >= :pg_am
  UNION ALL
    SELECT 'pg_cast'::regclass, k.oid, 0, concat_ws(' ', CASE k.castmethod WHEN 'i' THEN 'WITH INOUT' WHEN 'b' THEN 'WITHOUT FUNCTION' ELSE 'WITH FUNCTION ' || k.castfunc::regprocedure END,
           CASE k.castcontext WHEN 'a' THEN 'AS ASSIGNMENT' WHEN 'i' THEN 'AS IMPLICIT' END), NULL
    FROM pg_cast k WHERE k.oid >= :pg_cast
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'i')
  UNION ALL
    SELECT 'pg_transform'::regclass, f.oid, 0, concat_ws(' ', 'FROM SQL', nullif(f.trffromsql::oid, 0)::regprocedure, 'TO SQL', nullif(f.trftosql::oid, 0)::regprocedure), NULL FROM pg_transform f
  UNION ALL
    SELECT 'pg_language'::regclass, l.oid, 0, concat_ws(' ', CASE WHEN l.lanpltrusted THEN 'TRUSTED' END, 'HANDLER', nullif(l.lanplcallfoid, 0)::regprocedure,
           'INLINE ' || nullif(l.laninline, 0)::regprocedure, 'VALIDATOR ' || nullif(l.lanvalidator, 0)::regprocedure, CASE WHEN NOT l.lanispl THEN 'NOT PROCEDURAL' END, 'OWNER TO ' || l.lanowner::regrole), NULL
    FROM pg_language l WHERE l.oid >= :pg_language
  UNION ALL
    SELECT 'pg_ts_config'::regclass, t.oid, 0, concat_ws(' ', 'PARSER', (pg_identify_object('pg_ts_parser'::regclass, t.cfgparser, 0)).identity,
           (SELECT string_agg(format('%s: %s', n.alias, n.dicts), ', ' ORDER BY n.alias) FROM
               (SELECT k.alias, string_agg(m.mapdict::regdictionary::text, ' ' ORDER BY m.mapseqno) AS dicts FROM pg_ts_config_map m
                JOIN LATERAL ts_token_type(t.cfgparser) k ON k.tokid = m.maptokentype WHERE m.mapcfg = t.oid GROUP BY k.alias) n),
           'OWNER TO ' || t.cfgowner::regrole), NULL
    FROM pg_ts_config t JOIN ns ON ns.oid = t.cfgnamespace WHERE t.oid >= :pg_ts_config
  UNION ALL
    SELECT 'pg_ts_dict'::regclass, t.oid, 0, concat_ws(' ', 'TEMPLATE', (pg_identify_object('pg_ts_template'::regclass, t.dicttemplate, 0)).identity, t.dictinitoption, 'OWNER TO ' || t.dictowner::regrole), NULL
    FROM pg_ts_dict t JOIN ns ON ns.oid = t.dictnamespace WHERE t.oid >= :pg_ts_dict
  UNION ALL
    SELECT 'pg_ts_parser'::regclass, t.oid, 0, concat_ws(' ', t.prsstart::oid::regprocedure, t.prstoken::oid::regprocedure, t.prsend::oid::regprocedure,
           'HEADLINE ' || nullif(t.prsheadline::oid, 0)::regprocedure, t.prslextype::oid::regprocedure), NULL
    FROM pg_ts_parser t JOIN ns ON ns.oid = t.prsnamespace WHERE t.oid >= :pg_ts_parser
  UNION ALL
    SELECT 'pg_ts_template'::regclass, t.oid, 0, concat_ws(' ', nullif(t.tmplinit::oid, 0)::regprocedure, t.tmpllexize::oid::regprocedure), NULL
    FROM pg_ts_template t JOIN ns ON ns.oid = t.tmplnamespace WHERE t.oid >= :pg_ts_template
  UNION ALL
    SELECT 'pg_event_trigger'::regclass, e.oid, 0, concat_ws(' ', 'ON', e.evtevent, 'WHEN TAG IN (' || array_to_string(e.evttags, ', ') || ')',
           'EXECUTE FUNCTION', e.evtfoid::regprocedure, CASE e.evtenabled WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ENABLED REPLICA' WHEN 'A' THEN 'ENABLED ALWAYS' END, 'OWNER TO ' || e.evtowner::regrole), NULL
    FROM pg_event_trigger e
