//! Thrift's compact protocol, walked and not kept: the metadata of Parquet, looked at before its reader takes
//! memory by it.
//!
//! The encoding is that of
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>.

/// Structures and lists within each other; Parquet has seven.
const DEEPEST: usize = 32;
const CUT_OFF: &str = "its metadata is cut off";

/// What a field or an element of a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In a field: its value is its type.
    Bool,
    Byte,
    Int,
    Double,
    Bytes,
    List,
    Map,
    Struct,
    Uuid,
}

/// What a value should be. Fields that are not listed may be anything.
#[derive(Debug)]
pub(super) enum Shape {
    Is(Kind),
    List(&'static Shape),
    Struct(&'static [(i64, &'static Shape)]),
}

/// What is left of the bytes of a structure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compact<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Compact<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Compact { rest: bytes, depth: 0 }
    }

    /// Bytes that have not been walked.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Walks a structure. `field` gets the number of each field and what it holds, and says whether it has
    /// walked the value.
    ///
    /// # Errors
    /// What is wrong, in words: a length beyond the end, an unknown type, too many levels, or what `field`
    /// says.
    pub(super) fn structure(
        &mut self,
        mut field: impl FnMut(&mut Self, i64, Kind) -> Result<bool, String>,
    ) -> Result<(), String> {
        self.deeper()?;
        let mut number = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                break;
            }
            number = match head >> 4 {
                0 => self.int()?,
                step => number.saturating_add(i64::from(step)),
            };
            let kind = kind(head & 15)?;
            // A truth value in a field is its type.
            if !field(self, number, kind)? && kind != Kind::Bool {
                self.skip(kind)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The head of a list: what its elements are, and how many there are. Each takes a byte at least.
    ///
    /// # Errors
    /// A count beyond the end, or an unknown type.
    pub(super) fn list(&mut self) -> Result<(Kind, usize), String> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.length()?,
            count => usize::from(count),
        };
        if count > self.left() {
            return Err(format!("its metadata announces a list of {count} in {} bytes", self.left()));
        }
        Ok((kind(head & 15)?, count))
    }

    /// A whole number.
    ///
    /// # Errors
    /// If the bytes end within it.
    pub(super) fn int(&mut self) -> Result<i64, String> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// Walks a value.
    ///
    /// # Errors
    /// As [`Compact::structure`].
    pub(super) fn skip(&mut self, kind: Kind) -> Result<(), String> {
        match kind {
            Kind::Bool | Kind::Byte => self.pass(1),
            Kind::Int => self.varint().map(drop),
            Kind::Double => self.pass(8),
            Kind::Uuid => self.pass(16),
            Kind::Bytes => {
                let length = self.length()?;
                self.pass(length)
            }
            Kind::Struct => self.structure(|_, _, _| Ok(false)),
            Kind::List => {
                self.deeper()?;
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip(kind))?;
                self.depth -= 1;
                Ok(())
            }
            // Parquet has none.
            Kind::Map => Err("its metadata holds a map".into()),
        }
    }

    /// Walks the value of field `number`, of which `shapes` says what it should be.
    ///
    /// # Errors
    /// As [`Compact::structure`], and where it is something else.
    pub(super) fn field(&mut self, number: i64, kind: Kind, shapes: &[(i64, &Shape)]) -> Result<(), String> {
        match shapes.iter().find(|(known, _)| *known == number) {
            Some((_, shape)) => self.value(kind, shape),
            // A truth value in a field is its type.
            None if kind == Kind::Bool => Ok(()),
            None => self.skip(kind),
        }
    }

    fn value(&mut self, kind: Kind, shape: &Shape) -> Result<(), String> {
        match (shape, kind) {
            (Shape::Is(Kind::Bool), Kind::Bool) => Ok(()),
            (Shape::Is(expected), _) if *expected == kind => self.skip(kind),
            (Shape::Struct(fields), Kind::Struct) => {
                self.structure(|walk, number, kind| walk.field(number, kind, fields).map(|()| true))
            }
            (Shape::List(element), Kind::List) => {
                self.deeper()?;
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.value(kind, element))?;
                self.depth -= 1;
                Ok(())
            }
            _ => Err("its metadata is not of the kinds that Parquet's is".into()),
        }
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEEPEST { Err("its metadata has too many levels".into()) } else { Ok(()) }
    }

    fn length(&mut self) -> Result<usize, String> {
        usize::try_from(self.varint()?).map_err(|_| CUT_OFF.into())
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err("its metadata holds a number of more than 64 bits".into())
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.rest.split_first().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(*first)
    }

    fn pass(&mut self, count: usize) -> Result<(), String> {
        self.rest = self.rest.get(count..).ok_or(CUT_OFF)?;
        Ok(())
    }
}

fn kind(code: u8) -> Result<Kind, String> {
    Ok(match code {
        1 | 2 => Kind::Bool,
        3 => Kind::Byte,
        4..=6 => Kind::Int,
        7 => Kind::Double,
        8 => Kind::Bytes,
        9 | 10 => Kind::List,
        11 => Kind::Map,
        12 => Kind::Struct,
        13 => Kind::Uuid,
        _ => return Err(format!("its metadata holds a value of the unknown type {code}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_walked() {
        #[rustfmt::skip]
        let bytes = [
            0x15, 0x03,                         // 1: -2
            0x11, 0x12,                         // 2 and 3: true, false
            0x18, 2, b'a', b'b',                // 4: "ab"
            0x17, 0, 0, 0, 0, 0, 0, 0, 0,       // 5: 0.0
            0x29, 0x35, 1, 2, 3,                // 7: three numbers
            0x1c, 0x13, 9, 0,                   // 8: a structure of a byte
            0x05, 0x28, 0xac, 0x02,             // 20: 150, its number written out
            0x19, 0x21, 1, 2,                   // 21: two truth values
            0x00, 0xff,                         // the end, and what comes after it
        ];
        let mut walk = Compact::new(&bytes);
        let mut seen = Vec::new();
        walk.structure(|walk, number, kind| {
            seen.push((number, kind));
            Ok(match number {
                1 => walk.int()? == -2,
                20 => walk.int()? == 150,
                7 => {
                    assert_eq!(walk.list()?, (Kind::Int, 3));
                    (0..3).all(|_| walk.skip(Kind::Int).is_ok())
                }
                _ => false,
            })
        })
        .unwrap();
        assert_eq!(walk.left(), 1);
        use Kind::{Bool, Bytes, Double, Int, List, Struct};
        let kinds = [Int, Bool, Bool, Bytes, Double, List, Struct, Int, List];
        assert_eq!(seen, [1, 2, 3, 4, 5, 7, 8, 20, 21].into_iter().zip(kinds).collect::<Vec<_>>());
    }

    #[test]
    fn lengths_beyond_the_end_and_endless_levels_are_errors() {
        let walked = |bytes: &[u8]| Compact::new(bytes).skip(Kind::Struct).unwrap_err();
        for cut in [&[0x15][..], &[0x15, 0x80], &[0x18, 200, 1, b'a'], &[0x17, 0], &[0x1c], &[]] {
            assert_eq!(walked(cut), CUT_OFF, "{cut:?}");
        }
        let huge = [&[0x18][..], &[0xff; 9], &[0x01]].concat();
        assert_eq!(walked(&huge), CUT_OFF);
        assert!(
            walked(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).contains("64 bits")
        );
        assert!(walked(&[0x19, 0xfc, 0xff, 0xff, 3, 0]).contains("a list of 65535 in 1 bytes"));
        assert!(walked(&[0x1f, 0]).contains("unknown type 15"));
        assert!(walked(&[0x1b, 0]).contains("a map"));
        assert!(walked(&[0x1c; 1 << 20]).contains("too many levels"));
        // A list of a list of a list …
        assert!(walked(&[&[0x19][..], &[0x19; 1 << 20]].concat()).contains("too many levels"));
    }
}
