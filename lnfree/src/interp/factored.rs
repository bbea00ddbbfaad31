//! Products of a tall and a wide matrix that are never multiplied out.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// Numbers that [`FactoredMatrix::product`] makes at most: 1 GiB of float32. The circuits of a vocabulary are
/// far above it.
const MAX_PRODUCT: i64 = 1 << 28;

/// A matrix `left @ right` of low rank, kept as its factors: TransformerLens' `FactoredMatrix`.
///
/// Leading dimensions, the same in both, are a batch. Everything that only depends on the product is found
/// by way of `[r, r]` matrices, in float64 where it is a number.
///
/// ```
/// use lnfree::interp::FactoredMatrix;
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let options = (Kind::Double, Device::Cpu);
/// let circuit = FactoredMatrix::new(Tensor::randn([5000, 3], options), Tensor::randn([3, 5000], options))?;
/// assert_eq!((circuit.size(), circuit.rank()), (vec![5000, 5000], 3));
/// assert_eq!(circuit.eigenvalues()?.size(), [3, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FactoredMatrix {
    left: Tensor,
    right: Tensor,
}

/// U diag(S) Vᵀ, singular values falling.
#[derive(Debug)]
pub struct FactoredSvd {
    /// Left singular vectors as columns, `[.., m, k]`; k is the smallest of m, n and r.
    pub u: Tensor,
    /// Singular values, `[.., k]`.
    pub s: Tensor,
    /// Right singular vectors as columns, `[.., n, k]`.
    pub v: Tensor,
}

impl FactoredMatrix {
    /// Of `left` `[.., m, r]` and `right` `[.., r, n]`, of one type and device, and the same leading
    /// dimensions.
    ///
    /// # Errors
    /// Shapes that do not fit, other types or devices.
    pub fn new(left: Tensor, right: Tensor) -> Result<Self> {
        let (a, b) = (left.size(), right.size());
        let fit = a.len() >= 2
            && a.len() == b.len()
            && a[..a.len() - 2] == b[..b.len() - 2]
            && a[a.len() - 1] == b[b.len() - 2];
        if !fit {
            return Err(Error::invalid(format!("{a:?} @ {b:?} is no factored matrix")));
        }
        if left.kind() != right.kind() || left.device() != right.device() {
            return Err(Error::invalid("the factors of a matrix must be of one type and on one device"));
        }
        Ok(Self { left, right })
    }

    /// `[.., m, r]`.
    pub fn left(&self) -> &Tensor {
        &self.left
    }

    /// `[.., r, n]`.
    pub fn right(&self) -> &Tensor {
        &self.right
    }

    /// `[.., m, n]`, the size of the product.
    pub fn size(&self) -> Vec<i64> {
        let mut size = self.left.size();
        if let (Some(last), Some(n)) = (size.last_mut(), self.right.size().last()) {
            *last = *n;
        }
        size
    }

    /// r, which the rank of the product does not exceed.
    pub fn rank(&self) -> i64 {
        self.left.size().last().copied().unwrap_or(0)
    }

    /// One matrix of a batch, by its index in the first dimension.
    ///
    /// # Errors
    /// Without such a matrix.
    pub fn get(&self, index: i64) -> Result<Self> {
        if self.left.dim() < 3 {
            return Err(Error::invalid("a single factored matrix has no others in it"));
        }
        Self::new(self.left.f_select(0, index)?, self.right.f_select(0, index)?)
    }

    /// The matrix with rows and columns exchanged.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn transpose(&self) -> Result<Self> {
        Self::new(self.right.f_transpose(-2, -1)?, self.left.f_transpose(-2, -1)?)
    }

    /// `self @ other`, factored through the smaller of the two inner sizes.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let middle = self.right.f_matmul(&other.left)?;
        if self.rank() <= other.rank() {
            Self::new(self.left.shallow_clone(), middle.f_matmul(&other.right)?)
        } else {
            Self::new(self.left.f_matmul(&middle)?, other.right.shallow_clone())
        }
    }

    /// `self @ x`, `x` `[.., n, k]`, factored.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn then(&self, x: &Tensor) -> Result<Self> {
        Self::new(self.left.shallow_clone(), self.right.f_matmul(x)?)
    }

    /// `x @ self`, `x` `[.., k, m]`, factored.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn after(&self, x: &Tensor) -> Result<Self> {
        Self::new(x.f_matmul(&self.left)?, self.right.shallow_clone())
    }

    /// Rows `index` (int64 `[k]`) of the product, `[.., k, n]`.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn rows(&self, index: &Tensor) -> Result<Tensor> {
        Ok(self.left.f_index_select(-2, index)?.f_matmul(&self.right)?)
    }

    /// Columns `index` (int64 `[k]`) of the product, `[.., m, k]`.
    ///
    /// # Errors
    /// If there is no such column.
    pub fn columns(&self, index: &Tensor) -> Result<Tensor> {
        Ok(self.left.f_matmul(&self.right.f_index_select(-1, index)?)?)
    }

    /// The product itself, `[.., m, n]`.
    ///
    /// # Errors
    /// If it has more than 2^28 numbers: [`FactoredMatrix::rows`] and [`FactoredMatrix::columns`] give parts.
    pub fn product(&self) -> Result<Tensor> {
        let size = self.size();
        match size.iter().try_fold(1i64, |n, &of| n.checked_mul(of)) {
            Some(n) if n <= MAX_PRODUCT => Ok(self.left.f_matmul(&self.right)?),
            _ => Err(Error::invalid(format!("{size:?} is too large to be multiplied out; take rows of it"))),
        }
    }

    /// Σ of the diagonal, float64 `[..]`.
    ///
    /// # Errors
    /// If the matrix is not square.
    pub fn trace(&self) -> Result<Tensor> {
        let small = self.small_square()?;
        Ok(small.f_diagonal(0, -2, -1)?.f_sum_dim_intlist(-1i64, false, Kind::Double)?)
    }

    /// The eigenvalues that need not be zero, those of `right @ left` (Elhage et al. 2021, "A Mathematical
    /// Framework for Transformer Circuits"): real and imaginary parts, float64 `[.., r, 2]`, on the CPU.
    ///
    /// # Errors
    /// If the matrix is not square, or the eigenvalues are not found.
    pub fn eigenvalues(&self) -> Result<Tensor> {
        Ok(self.small_square()?.f_to_device(Device::Cpu)?.f_linalg_eigvals()?.f_view_as_real()?)
    }

    /// Frobenius norm, the root of the sum of squares, float64 `[..]`: that of
    /// tr((leftᵀ left)(right rightᵀ)).
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn norm(&self) -> Result<Tensor> {
        let [left, right] = self.doubles()?;
        let left = left.f_transpose(-2, -1)?.f_matmul(&left)?;
        let right = right.f_matmul(&right.f_transpose(-2, -1)?)?;
        let dims = [-2i64, -1];
        let square = left.f_mul(&right)?.f_sum_dim_intlist(dims.as_slice(), false, Kind::Double)?;
        // Rounding may take nothing a little below nothing.
        Ok(square.f_clamp_min(0.0)?.f_sqrt()?)
    }

    /// Singular value decomposition, float64, by QR of both factors and the decomposition of the `[r, r]`
    /// product of their triangles. Signs are libtorch's.
    ///
    /// # Errors
    /// If libtorch does not find it.
    pub fn svd(&self) -> Result<FactoredSvd> {
        let [left, right] = self.doubles()?;
        let (q_left, r_left) = Tensor::f_linalg_qr(&left, "reduced")?;
        let (q_right, r_right) = Tensor::f_linalg_qr(&right.f_transpose(-2, -1)?, "reduced")?;
        let (u, s, v) = r_left.f_matmul(&r_right.f_transpose(-2, -1)?)?.f_svd(true, true)?;
        Ok(FactoredSvd { u: q_left.f_matmul(&u)?, s, v: q_right.f_matmul(&v)? })
    }

    /// `right @ left`, float64 `[.., r, r]`, of a square matrix.
    fn small_square(&self) -> Result<Tensor> {
        let size = self.size();
        if size[size.len() - 2] != size[size.len() - 1] {
            return Err(Error::invalid(format!("{size:?} is not square")));
        }
        let [left, right] = self.doubles()?;
        Ok(right.f_matmul(&left)?)
    }

    fn doubles(&self) -> Result<[Tensor; 2]> {
        Ok([self.left.f_to_kind(Kind::Double)?, self.right.f_to_kind(Kind::Double)?])
    }
}
