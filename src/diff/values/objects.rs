//! Values that are numbers of objects: printed as regclassout and its kin do (regproc.c) with an empty search
//! path, by the catalogs of their own side.
#![allow(unsafe_code)] // rows of catalogs

use super::kinds::name_bytes;
use super::{bytes_of, is_inline, Values};
use crate::pg::tuple::Row;
use pgrx::pg_sys::{self, Oid};
use std::ffi::CStr;
use std::rc::Rc;

const FIRST_NORMAL: u32 = pg_sys::FirstNormalObjectId;
/// pg_ts_config and pg_ts_dict with their indexes on oid, which pgrx does not bind (pg_ts_config.h, pg_ts_dict.h).
const TS_CONFIG: (u32, u32) = (3602, 3712);
const TS_DICT: (u32, u32) = (3600, 3605);

/// Columns that say what an object is called: its name and its schema, from 1.
struct Place {
    catalog: (u32, u32),
    name: i32,
    schema: i32,
}

fn place(kind: u32) -> Option<Place> {
    let (catalog, name, schema) = match Oid::from(kind) {
        pg_sys::REGCLASSOID => (
            (pg_sys::RelationRelationId.to_u32(), pg_sys::ClassOidIndexId),
            pg_sys::Anum_pg_class_relname,
            pg_sys::Anum_pg_class_relnamespace,
        ),
        pg_sys::REGPROCOID | pg_sys::REGPROCEDUREOID => (
            (
                pg_sys::ProcedureRelationId.to_u32(),
                pg_sys::ProcedureOidIndexId,
            ),
            pg_sys::Anum_pg_proc_proname,
            pg_sys::Anum_pg_proc_pronamespace,
        ),
        pg_sys::REGOPEROID | pg_sys::REGOPERATOROID => (
            (
                pg_sys::OperatorRelationId.to_u32(),
                pg_sys::OperatorOidIndexId,
            ),
            pg_sys::Anum_pg_operator_oprname,
            pg_sys::Anum_pg_operator_oprnamespace,
        ),
        pg_sys::REGCOLLATIONOID => (
            (
                pg_sys::CollationRelationId.to_u32(),
                pg_sys::CollationOidIndexId,
            ),
            pg_sys::Anum_pg_collation_collname,
            pg_sys::Anum_pg_collation_collnamespace,
        ),
        // oid, name, schema
        pg_sys::REGCONFIGOID => (TS_CONFIG, 2, 3),
        pg_sys::REGDICTIONARYOID => (TS_DICT, 2, 3),
        _ => return None,
    };
    Some(Place {
        catalog,
        name: name as i32,
        schema: schema as i32,
    })
}

/// A name as `quote_identifier` has it.
fn quoted(name: &[u8]) -> Vec<u8> {
    let name = crate::pg::text::c_string(name.to_vec());
    // SAFETY: a C string; the result is it, or a palloc'd one.
    unsafe { CStr::from_ptr(pg_sys::quote_identifier(name.as_ptr())) }
        .to_bytes()
        .to_vec()
}

/// A column that is a name.
fn name_of(row: &Row, column: i32) -> Vec<u8> {
    let name = row.column(column);
    // SAFETY: a column of type name.
    name.map_or_else(Vec::new, |name| unsafe {
        name_bytes(&*name.cast_mut_ptr::<pg_sys::NameData>())
    })
}

impl Values<'_> {
    /// The object's name; its number if there is none of it, `-` for no object.
    pub fn object(&self, kind: u32, number: u32) -> Rc<[u8]> {
        let known = self.names.borrow().get(&(kind, number)).cloned();
        known.unwrap_or_else(|| {
            let name: Rc<[u8]> = self.find_object(kind, number).into();
            self.names.borrow_mut().insert((kind, number), name.clone());
            name
        })
    }

    fn find_object(&self, kind: u32, number: u32) -> Vec<u8> {
        if number == 0 {
            let operator = matches!(Oid::from(kind), pg_sys::REGOPEROID | pg_sys::REGOPERATOROID);
            return if operator {
                b"0".to_vec()
            } else {
                b"-".to_vec()
            };
        }
        let found = match Oid::from(kind) {
            pg_sys::REGNAMESPACEOID => self.schema(number).map(|name| quoted(&name)),
            pg_sys::REGTYPEOID => self.type_name(number),
            _ => place(kind).and_then(|place| self.named(kind, &place, number)),
        };
        found.unwrap_or_else(|| number.to_string().into_bytes())
    }

    fn schema(&self, number: u32) -> Option<Vec<u8>> {
        let (table, index) = (
            pg_sys::NamespaceRelationId.to_u32(),
            pg_sys::NamespaceOidIndexId,
        );
        let mut found = None;
        self.catalogs.each(table, index, number, |row| {
            found = Some(name_of(row, pg_sys::Anum_pg_namespace_nspname as i32));
        });
        found
    }

    /// A name behind its schema's, but for the server's own.
    fn qualified(&self, schema: u32, name: Vec<u8>) -> Vec<u8> {
        if Oid::from(schema) == pg_sys::PG_CATALOG_NAMESPACE.into() {
            return name;
        }
        let mut whole = self
            .schema(schema)
            .map_or_else(Vec::new, |schema| quoted(&schema));
        whole.push(b'.');
        whole.extend(name);
        whole
    }

    fn named(&self, kind: u32, place: &Place, number: u32) -> Option<Vec<u8>> {
        let mut found = None;
        let (table, index) = place.catalog;
        self.catalogs.each(table, index, number, |row| {
            let schema = row
                .column(place.schema)
                .map_or(0, |schema| schema.value() as u32);
            let arguments = match Oid::from(kind) {
                pg_sys::REGPROCEDUREOID => Some(argument_types(row)),
                pg_sys::REGOPERATOROID => Some(operand_types(row)),
                _ => None,
            };
            found = Some((name_of(row, place.name), schema, arguments));
        });
        let (name, schema, arguments) = found?;
        let operator = matches!(Oid::from(kind), pg_sys::REGOPEROID | pg_sys::REGOPERATOROID);
        let name = if operator { name } else { quoted(&name) };
        let mut whole = self.qualified(schema, name);
        if let Some(arguments) = arguments {
            let types = arguments.into_iter().map(|kind| match kind {
                0 => b"NONE".to_vec(),
                kind => self
                    .type_name(kind)
                    .unwrap_or_else(|| kind.to_string().into_bytes()),
            });
            whole.push(b'(');
            whole.extend(types.collect::<Vec<_>>().join(&b','));
            whole.push(b')');
        }
        Some(whole)
    }

    /// As format_type_be (format_type.c).
    pub fn type_name(&self, number: u32) -> Option<Vec<u8>> {
        let form = self.type_row(number)?;
        if number < FIRST_NORMAL {
            // SAFETY: a type of the server's own; a palloc'd C string.
            let name = unsafe { CStr::from_ptr(pg_sys::format_type_be(number.into())) };
            return Some(name.to_bytes().to_vec());
        }
        let is_array =
            form.typelem != pg_sys::InvalidOid && form.typoutput.to_u32() == pg_sys::F_ARRAY_OUT;
        if is_array && form.typlen == -1 {
            let mut name = self.type_name(form.typelem.to_u32())?;
            name.extend(b"[]");
            return Some(name);
        }
        Some(self.qualified(
            form.typnamespace.to_u32(),
            quoted(&name_bytes(&form.typname)),
        ))
    }
}

/// proargtypes: an oidvector.
fn argument_types(row: &Row) -> Vec<u32> {
    let value = row
        .column(pg_sys::Anum_pg_proc_proargtypes as i32)
        .filter(|value| is_inline(*value));
    value.map_or_else(Vec::new, |value| {
        // SAFETY: a varlena that lies in its row: what is behind its header is that of an array of one
        // dimension (20 bytes; c.h, `oidvector`), then its numbers.
        let bytes = unsafe { bytes_of(value) };
        let numbers = bytes.get(20..).unwrap_or_default().chunks_exact(4);
        numbers
            .map(|it| u32::from_ne_bytes([it[0], it[1], it[2], it[3]]))
            .collect()
    })
}

/// oprleft and oprright: both have a place.
fn operand_types(row: &Row) -> Vec<u32> {
    let columns = [
        pg_sys::Anum_pg_operator_oprleft,
        pg_sys::Anum_pg_operator_oprright,
    ];
    columns
        .into_iter()
        .map(|column| {
            row.column(column as i32)
                .map_or(0, |kind| kind.value() as u32)
        })
        .collect()
}
