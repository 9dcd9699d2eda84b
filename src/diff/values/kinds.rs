//! What a type's values are made of.
#![allow(unsafe_code)] // rows of catalogs, and functions in C

use super::Values;
use crate::pg::text;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::collections::HashMap;
use std::rc::Rc;

/// How a value lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub len: i16,
    pub by_value: bool,
    pub align: i8,
}

/// A column of a composite type.
pub struct Field {
    pub name: Vec<u8>,
    pub kind: u32,
}

/// How a value is shown in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Bool,
    Number,
    Json,
    Time,
}

pub enum Kind {
    /// Its bytes are its text.
    Plain(Form),
    Bytea,
    /// Printed by a function in C: the server's own, or an extension's.
    Output(Oid, Form, Box<pg_sys::FmgrInfo>, Layout),
    /// The number of an object: its type says of which catalog.
    Object(u32),
    Enum(HashMap<u32, Vec<u8>>),
    Array {
        element: u32,
        layout: Layout,
        delimiter: u8,
    },
    /// Columns, dropped ones as `None`, and a descriptor to take values apart.
    Row(Vec<Option<Field>>, pg_sys::TupleDesc),
    Range {
        element: u32,
        layout: Layout,
    },
    Multirange {
        element: u32,
        layout: Layout,
    },
    /// No code that may be run knows what they mean.
    Bytes(Layout),
}

/// `FirstNormalObjectId`: below are the server's own, the same in each database.
const FIRST_NORMAL: u32 = pg_sys::FirstNormalObjectId;
/// pg_range, and its indexes (pg_range.h), which pgrx does not bind; its first two columns.
const RANGE: u32 = 3541;
const RANGE_BY_TYPE: u32 = 3542;
const RANGE_BY_MULTIRANGE: u32 = 2228;

/// `INTERNALlanguageId` and `ClanguageId` (pg_language.dat).
const INTERNAL: u32 = 12;
const C: u32 = 13;

fn form_of(kind: u32) -> Form {
    match Oid::from(kind) {
        pg_sys::BOOLOID => Form::Bool,
        pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::FLOAT4OID
        | pg_sys::FLOAT8OID
        | pg_sys::NUMERICOID => Form::Number,
        pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Form::Time,
        pg_sys::JSONOID | pg_sys::JSONBOID => Form::Json,
        _ => Form::Text,
    }
}

fn is_object(kind: u32) -> bool {
    matches!(
        Oid::from(kind),
        pg_sys::REGPROCOID
            | pg_sys::REGPROCEDUREOID
            | pg_sys::REGOPEROID
            | pg_sys::REGOPERATOROID
            | pg_sys::REGCLASSOID
            | pg_sys::REGCOLLATIONOID
            | pg_sys::REGTYPEOID
            | pg_sys::REGNAMESPACEOID
            | pg_sys::REGCONFIGOID
            | pg_sys::REGDICTIONARYOID
    )
}

fn layout_of(form: &pg_sys::FormData_pg_type) -> Layout {
    Layout {
        len: form.typlen,
        by_value: form.typbyval,
        align: form.typalign,
    }
}

impl Values<'_> {
    /// The kind of the type with this number; of a domain, that of the type below it.
    pub fn kind(&self, kind: u32) -> Rc<Kind> {
        if let Some(known) = self.kinds.borrow().get(&kind) {
            return known.clone();
        }
        // SAFETY: the context that this lives in; then the one that was current.
        let found = unsafe {
            let last = pg_sys::MemoryContextSwitchTo(self.memory);
            let found = Rc::new(self.find(kind));
            pg_sys::MemoryContextSwitchTo(last);
            found
        };
        self.kinds.borrow_mut().insert(kind, found.clone());
        found
    }

    /// The row of pg_type, of that database.
    pub fn type_row(&self, kind: u32) -> Option<pg_sys::FormData_pg_type> {
        let mut form = None;
        let (table, index) = (pg_sys::TypeRelationId.to_u32(), pg_sys::TypeOidIndexId);
        self.catalogs.each(table, index, kind, |row| {
            // SAFETY: pg_type.
            let row = unsafe { row.fixed::<pg_sys::FormData_pg_type>() };
            if row.oid.to_u32() == kind {
                form = Some(*row);
            }
        });
        form
    }

    fn find(&self, kind: u32) -> Kind {
        // Domains over domains: a catalog that is not damaged ends the walk.
        let mut kind = kind;
        let form = loop {
            let Some(form) = self.type_row(kind) else {
                return Kind::Bytes(Layout {
                    len: -1,
                    by_value: false,
                    align: pg_sys::TYPALIGN_INT as i8,
                });
            };
            if form.typtype as u8 != pg_sys::TYPTYPE_DOMAIN {
                break form;
            }
            pgrx::check_for_interrupts!();
            kind = form.typbasetype.to_u32();
        };
        let layout = layout_of(&form);
        let is_array = form.typelem != pg_sys::InvalidOid
            && form.typlen == -1
            && form.typoutput.to_u32() == pg_sys::F_ARRAY_OUT;
        match form.typtype as u8 {
            _ if is_array => match self.type_row(form.typelem.to_u32()) {
                Some(element) => Kind::Array {
                    element: form.typelem.to_u32(),
                    layout: layout_of(&element),
                    delimiter: element.typdelim as u8,
                },
                None => Kind::Bytes(layout),
            },
            pg_sys::TYPTYPE_ENUM => Kind::Enum(self.labels(kind)),
            pg_sys::TYPTYPE_COMPOSITE => self
                .row(form.typrelid.to_u32())
                .unwrap_or(Kind::Bytes(layout)),
            pg_sys::TYPTYPE_RANGE | pg_sys::TYPTYPE_MULTIRANGE if kind >= FIRST_NORMAL => {
                let many = form.typtype as u8 == pg_sys::TYPTYPE_MULTIRANGE;
                let element = self.subtype(kind, many);
                match element.and_then(|it| Some((it, layout_of(&self.type_row(it)?)))) {
                    Some((element, layout)) if many => Kind::Multirange { element, layout },
                    Some((element, layout)) => Kind::Range { element, layout },
                    None => Kind::Bytes(layout),
                }
            }
            _ => self.base(kind, &form, layout),
        }
    }

    fn base(&self, kind: u32, form: &pg_sys::FormData_pg_type, layout: Layout) -> Kind {
        match Oid::from(kind) {
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID | pg_sys::XMLOID => {
                return Kind::Plain(Form::Text)
            }
            pg_sys::JSONOID => return Kind::Plain(Form::Json),
            pg_sys::BYTEAOID => return Kind::Bytea,
            _ if is_object(kind) => return Kind::Object(kind),
            _ => {}
        }
        let mut function = Box::new(pg_sys::FmgrInfo::default());
        let output = form.typoutput;
        if kind < FIRST_NORMAL {
            // SAFETY: a function of the server's own; what it remembers lives as long as this.
            unsafe { pg_sys::fmgr_info_cxt(output, &mut *function, self.memory) };
            return Kind::Output(Oid::from(kind), form_of(kind), function, layout);
        }
        match self.function(output.to_u32()) {
            Some(address) => {
                function.fn_addr = Some(address);
                (function.fn_nargs, function.fn_strict, function.fn_mcxt) = (1, true, self.memory);
                Kind::Output(Oid::from(kind), Form::Text, function, layout)
            }
            None => Kind::Bytes(layout),
        }
    }

    /// The address of a function in C that the database knows by this number. Such functions are made by
    /// superusers, and those that print a type can be in no other language but the untrusted ones, which are
    /// not called here.
    fn function(&self, number: u32) -> pg_sys::PGFunction {
        let mut found = None;
        let (table, index) = (
            pg_sys::ProcedureRelationId.to_u32(),
            pg_sys::ProcedureOidIndexId,
        );
        self.catalogs.each(table, index, number, |row| {
            // SAFETY: pg_proc; texts of a few bytes, which lie in the row.
            unsafe {
                let form = row.fixed::<pg_sys::FormData_pg_proc>();
                let text = |column: u32| {
                    let value = row
                        .column(column as i32)
                        .filter(|value| super::is_inline(*value));
                    value.map(|value| text::c_string(super::bytes_of(value).to_vec()))
                };
                if form.oid.to_u32() == number {
                    let texts = (
                        text(pg_sys::Anum_pg_proc_prosrc),
                        text(pg_sys::Anum_pg_proc_probin),
                    );
                    found = Some((form.prolang.to_u32(), texts));
                }
            }
        });
        let (language, (symbol, file)) = found?;
        let symbol = symbol?;
        match language {
            // SAFETY: C strings; the function's address is the server's.
            INTERNAL => unsafe {
                let number = pg_sys::fmgr_internal_function(symbol.as_ptr());
                if number == pg_sys::InvalidOid {
                    return None;
                }
                let mut function = pg_sys::FmgrInfo::default();
                pg_sys::fmgr_info(number, &mut function);
                function.fn_addr
            },
            C => {
                let file = file?;
                // A library that cannot be loaded is no reason to tell nothing: its values are shown as bytes.
                PgTryBuilder::new(|| {
                    let none = std::ptr::null_mut();
                    // SAFETY: C strings; a function of version 1 by that name, or null.
                    unsafe {
                        let found = pg_sys::load_external_function(
                            file.as_ptr(),
                            symbol.as_ptr(),
                            false,
                            none,
                        );
                        std::mem::transmute::<*mut std::ffi::c_void, pg_sys::PGFunction>(found)
                    }
                })
                .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| {
                    error.rethrow()
                })
                .catch_others(|_| None)
                .execute()
            }
            _ => None,
        }
    }

    fn labels(&self, kind: u32) -> HashMap<u32, Vec<u8>> {
        let mut labels = HashMap::new();
        let (table, index) = (
            pg_sys::EnumRelationId.to_u32(),
            pg_sys::EnumTypIdLabelIndexId,
        );
        self.catalogs.each(table, index, kind, |row| {
            // SAFETY: pg_enum.
            let row = unsafe { row.fixed::<pg_sys::FormData_pg_enum>() };
            labels.insert(row.oid.to_u32(), name_bytes(&row.enumlabel));
        });
        labels
    }

    /// The type of a range's bounds.
    fn subtype(&self, kind: u32, many: bool) -> Option<u32> {
        let index = match many {
            true => RANGE_BY_MULTIRANGE,
            false => RANGE_BY_TYPE,
        };
        let mut found = None;
        self.catalogs.each(RANGE, index, kind, |row| {
            // SAFETY: pg_range: rngtypid, rngsubtype.
            found = Some(unsafe { row.fixed::<[u32; 2]>() }[1]);
        });
        found
    }

    fn row(&self, relation: u32) -> Option<Kind> {
        let count = self.catalogs.class(relation)?.relnatts;
        let mut columns: Vec<Option<(Option<Field>, Layout)>> =
            (0..count.max(0)).map(|_| None).collect();
        let (table, index) = (
            pg_sys::AttributeRelationId.to_u32(),
            pg_sys::AttributeRelidNumIndexId,
        );
        self.catalogs.each(table, index, relation, |row| {
            // SAFETY: pg_attribute.
            let form = unsafe { row.fixed::<pg_sys::FormData_pg_attribute>() };
            if form.attrelid.to_u32() != relation || !(1..=count).contains(&form.attnum) {
                return;
            }
            let layout = Layout {
                len: form.attlen,
                by_value: form.attbyval,
                align: form.attalign,
            };
            let field = (!form.attisdropped).then(|| Field {
                name: name_bytes(&form.attname),
                kind: form.atttypid.to_u32(),
            });
            columns[form.attnum as usize - 1] = Some((field, layout));
        });
        let columns: Vec<(Option<Field>, Layout)> = columns.into_iter().collect::<Option<_>>()?;
        let layouts: Vec<Layout> = columns.iter().map(|(_, layout)| *layout).collect();
        let fields = columns.into_iter().map(|(field, _)| field).collect();
        Some(Kind::Row(fields, descriptor(&layouts)))
    }
}

/// A descriptor that tells where each value of a tuple lies, and no more. Lives in the current memory context.
pub fn descriptor(layouts: &[Layout]) -> pg_sys::TupleDesc {
    // SAFETY: a descriptor of as many columns, each of which is filled in.
    unsafe {
        let form = pg_sys::CreateTemplateTupleDesc(layouts.len() as i32);
        for (n, layout) in layouts.iter().enumerate() {
            let number = (n + 1) as i16;
            pg_sys::TupleDescInitEntry(form, number, c"".as_ptr(), pg_sys::INT4OID, -1, 0);
            let place = &mut (*form).attrs.as_mut_slice(layouts.len())[n];
            place.attlen = layout.len;
            place.attalign = layout.align as _;
            place.attbyval = layout.by_value;
            place.attcacheoff = -1;
        }
        form
    }
}

/// A name's bytes.
pub fn name_bytes(name: &pg_sys::NameData) -> Vec<u8> {
    let bytes = name.data.iter().map(|byte| *byte as u8);
    bytes.take_while(|byte| *byte != 0).collect()
}

/// The values of a composite value, nulls as `None`.
///
/// # Safety
/// A value of a type with that descriptor. They live in the current memory context.
pub unsafe fn fields(value: Datum, form: pg_sys::TupleDesc) -> Vec<Option<Datum>> {
    // SAFETY: by the caller's promise; as record_out (rowtypes.c).
    unsafe {
        let header = pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr())
            .cast::<pg_sys::HeapTupleHeaderData>();
        // 15.20 says by these two that the value bears its type, and compares that with this database's.
        (*header).t_infomask &= !((pg_sys::HEAP_XMAX_COMMITTED | pg_sys::HEAP_XMAX_INVALID) as u16);
        let mut tuple = pg_sys::HeapTupleData {
            t_len: pgrx::varlena::varsize_any(header.cast()) as u32,
            t_data: header,
            ..Default::default()
        };
        let count = (*form).natts as usize;
        let (mut values, mut nulls) = (vec![Datum::from(0usize); count], vec![true; count]);
        pg_sys::heap_deform_tuple(&mut tuple, form, values.as_mut_ptr(), nulls.as_mut_ptr());
        let values = values.into_iter().zip(nulls);
        values
            .map(|(value, null)| (!null).then_some(value))
            .collect()
    }
}
