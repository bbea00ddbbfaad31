//! What fields of Parquet's metadata hold, from
//! <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.
//!
//! Parquet's reader takes a known field for what it should be, whatever the file says that it is. What
//! differs is refused, so that the reader sees the same as our checks.

use super::thrift::Kind::{Bool, Byte, Bytes, Double, Int};
use super::thrift::Shape::{self, Is, List, Struct};

const BOOL: Shape = Is(Bool);
const BYTE: Shape = Is(Byte);
const INT: Shape = Is(Int);
const BYTES: Shape = Is(Bytes);
/// A structure without fields of its own.
const NOTHING: Shape = Struct(&[]);

const TIME: Shape = Struct(&[(1, &BOOL), (2, &Struct(&[(1, &NOTHING), (2, &NOTHING), (3, &NOTHING)]))]);
const LOGICAL_TYPE: Shape = Struct(&[
    (1, &NOTHING),
    (2, &NOTHING),
    (3, &NOTHING),
    (4, &NOTHING),
    (5, &Struct(&[(1, &INT), (2, &INT)])),
    (6, &NOTHING),
    (7, &TIME),
    (8, &TIME),
    (10, &Struct(&[(1, &BYTE), (2, &BOOL)])),
    (11, &NOTHING),
    (12, &NOTHING),
    (13, &NOTHING),
    (14, &NOTHING),
    (15, &NOTHING),
    (16, &Struct(&[(1, &BYTE)])),
    (17, &Struct(&[(1, &BYTES)])),
    (18, &Struct(&[(1, &BYTES), (2, &INT)])),
]);
/// One node of a schema; the fifth field is the number of its children.
pub(super) const SCHEMA_ELEMENT: &[(i64, &Shape)] = &[
    (1, &INT),
    (2, &INT),
    (3, &INT),
    (4, &BYTES),
    (5, &INT),
    (6, &INT),
    (7, &INT),
    (8, &INT),
    (9, &INT),
    (10, &LOGICAL_TYPE),
];

const STATISTICS: Shape = Struct(&[
    (1, &BYTES),
    (2, &BYTES),
    (3, &INT),
    (4, &INT),
    (5, &BYTES),
    (6, &BYTES),
    (7, &BOOL),
    (8, &BOOL),
]);
const KEY_VALUE: Shape = Struct(&[(1, &BYTES), (2, &BYTES)]);
const SIZE_STATISTICS: Shape = Struct(&[(1, &INT), (2, &List(&INT)), (3, &List(&INT))]);
const DOUBLE: Shape = Is(Double);
const BOX: Shape = Struct(&[
    (1, &DOUBLE),
    (2, &DOUBLE),
    (3, &DOUBLE),
    (4, &DOUBLE),
    (5, &DOUBLE),
    (6, &DOUBLE),
    (7, &DOUBLE),
    (8, &DOUBLE),
]);
const COLUMN_METADATA: Shape = Struct(&[
    (1, &INT),
    (2, &List(&INT)),
    (3, &List(&BYTES)),
    (4, &INT),
    (5, &INT),
    (6, &INT),
    (7, &INT),
    (8, &List(&KEY_VALUE)),
    (9, &INT),
    (10, &INT),
    (11, &INT),
    (12, &STATISTICS),
    (13, &List(&Struct(&[(1, &INT), (2, &INT), (3, &INT)]))),
    (14, &INT),
    (15, &INT),
    (16, &SIZE_STATISTICS),
    (17, &Struct(&[(1, &BOX), (2, &List(&INT))])),
]);
const COLUMN_CHUNK: Shape =
    Struct(&[(1, &BYTES), (2, &INT), (3, &COLUMN_METADATA), (4, &INT), (5, &INT), (6, &INT), (7, &INT)]);
const ROW_GROUP: Shape = Struct(&[
    (1, &List(&COLUMN_CHUNK)),
    (2, &INT),
    (3, &INT),
    (4, &List(&Struct(&[(1, &INT), (2, &BOOL), (3, &BOOL)]))),
    (5, &INT),
    (6, &INT),
    (7, &INT),
]);
/// A footer; the second field is its schema.
pub(super) const FILE_METADATA: &[(i64, &Shape)] = &[
    (1, &INT),
    (2, &List(&Struct(SCHEMA_ELEMENT))),
    (3, &INT),
    (4, &List(&ROW_GROUP)),
    (5, &List(&KEY_VALUE)),
    (6, &BYTES),
    (7, &List(&Struct(&[(1, &NOTHING)]))),
];

/// The head of a page; the second and third field are its size unpacked and packed.
pub(super) const PAGE_HEADER: &[(i64, &Shape)] = &[
    (1, &INT),
    (2, &INT),
    (3, &INT),
    (4, &INT),
    (5, &Struct(&[(1, &INT), (2, &INT), (3, &INT), (4, &INT), (5, &STATISTICS)])),
    (6, &NOTHING),
    (7, &Struct(&[(1, &INT), (2, &INT), (3, &BOOL)])),
    (
        8,
        &Struct(&[
            (1, &INT),
            (2, &INT),
            (3, &INT),
            (4, &INT),
            (5, &INT),
            (6, &INT),
            (7, &BOOL),
            (8, &STATISTICS),
        ]),
    ),
];
