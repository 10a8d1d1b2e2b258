//! Types and shapes of all values of a graph whose inputs have fixed shapes.
//!
//! Only the operators are known that static graphs consist of. What follows from another one has no known shape, which is what
//! the rules report.

use std::collections::BTreeMap;

use crate::proto::{Model, Node, Tensor};

/// What is known of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Element type, named as ONNX names it in lower case.
    pub(super) dtype: String,
    /// The sizes, if all of them are known.
    pub(super) shape: Option<Vec<usize>>,
}

/// What is known of the values of `model`, by their names.
pub(super) fn infer(model: &Model) -> BTreeMap<&str, Known> {
    let mut known = BTreeMap::new();
    for port in &model.inputs {
        let shape = port.shape.iter().map(|dim| dim.fixed()).collect();
        known.insert(port.name.as_str(), Known { dtype: port.dtype.clone(), shape });
    }
    for tensor in &model.tensors {
        let shape = tensor.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        known.insert(tensor.name.as_str(), Known { dtype: tensor.dtype.clone(), shape });
    }
    let constants: BTreeMap<&str, &Tensor> =
        model.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    for node in &model.nodes {
        let call = Call { node, known: &known, constants: &constants };
        let dtype = call.dtype();
        let shapes = call.shapes();
        for (i, output) in node.outputs.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
            let shape = shapes.as_ref().and_then(|shapes| shapes.get(i)).cloned();
            known.insert(output, Known { dtype: dtype.clone(), shape });
        }
    }
    known
}

/// A node with what is known before it.
struct Call<'m, 'k> {
    node: &'m Node,
    known: &'k BTreeMap<&'m str, Known>,
    constants: &'k BTreeMap<&'m str, &'m Tensor>,
}

impl Call<'_, '_> {
    fn dtype(&self) -> String {
        match (self.node.op.as_str(), self.number("to")) {
            ("Cast", Some(1)) => "float32".to_owned(),
            ("Cast", Some(6)) => "int32".to_owned(),
            ("Cast", Some(7)) => "int64".to_owned(),
            ("Cast", Some(10)) => "float16".to_owned(),
            ("Cast", _) => "unknown".to_owned(),
            // The type of the zero point is that of the result, and the type of the scale that of the numbers.
            ("QuantizeLinear", _) => self.input(2).map_or_else(|| "uint8".to_owned(), |input| input.dtype.clone()),
            ("DequantizeLinear", _) => self.input(1).map_or_else(|| "unknown".to_owned(), |it| it.dtype.clone()),
            _ => self.input(0).map_or_else(|| "unknown".to_owned(), |input| input.dtype.clone()),
        }
    }

    /// The shapes of the outputs, as far as there are such; `None` if they are not known.
    fn shapes(&self) -> Option<Vec<Vec<usize>>> {
        let shape = match self.node.op.as_str() {
            "Add" | "Div" | "Mul" | "Sub" => broadcast(self.shape(0)?, self.shape(1)?)?,
            "Cast"
            | "DequantizeLinear"
            | "QuantizeLinear"
            | "Sigmoid"
            | "SimplifiedLayerNormalization"
            | "Softmax"
            | "Sqrt" => self.shape(0)?.to_vec(),
            "Concat" => self.concat()?,
            "Gemm" => {
                let columns = usize::from(self.number("transB") != Some(1));
                vec![*self.shape(0)?.first()?, *self.shape(1)?.get(columns)?]
            }
            "MatMul" => product(self.shape(0)?, self.shape(1)?)?,
            "com.microsoft.MatMulNBits" => {
                let mut shape = self.shape(0)?.to_vec();
                *shape.last_mut()? = usize::try_from(self.number("N")?).ok()?;
                shape
            }
            "ReduceMean" => {
                let mut shape = self.shape(0)?.to_vec();
                for axis in self.integers(1)? {
                    let axis = place(*axis, shape.len())?;
                    shape[axis] = 1;
                }
                // Without the dimensions that it sums over, the shape is not followed.
                (self.number("keepdims") != Some(0)).then_some(shape)?
            }
            "Reshape" => self.reshape()?,
            "Slice" => self.slice()?,
            "Split" => return self.split(),
            "Transpose" => {
                let shape = self.shape(0)?;
                self.list("perm")?.into_iter().map(|axis| shape.get(axis).copied()).collect::<Option<_>>()?
            }
            _ => return None,
        };
        Some(vec![shape])
    }

    fn concat(&self) -> Option<Vec<usize>> {
        let mut shape = self.shape(0)?.to_vec();
        let axis = place(self.number("axis")?, shape.len())?;
        for i in 1..self.node.inputs.len() {
            shape[axis] = shape[axis].checked_add(*self.shape(i)?.get(axis)?)?;
        }
        Some(shape)
    }

    fn reshape(&self) -> Option<Vec<usize>> {
        let (shape, wanted) = (self.shape(0)?, self.integers(1)?);
        let kept = |(i, &size): (usize, &i64)| match size {
            0 => shape.get(i).copied(),
            -1 => Some(1),
            size => usize::try_from(size).ok(),
        };
        let mut reshaped = wanted.iter().enumerate().map(kept).collect::<Option<Vec<_>>>()?;
        if let Some(free) = wanted.iter().position(|&size| size == -1) {
            reshaped[free] = elements(shape)?.checked_div(elements(&reshaped)?)?;
        }
        Some(reshaped)
    }

    fn slice(&self) -> Option<Vec<usize>> {
        let has_steps = self.node.inputs.get(4).is_some_and(|steps| !steps.is_empty());
        if has_steps && self.integers(4)?.iter().any(|&step| step != 1) {
            return None;
        }
        let mut shape = self.shape(0)?.to_vec();
        for (i, axis) in self.integers(3)?.iter().enumerate() {
            let axis = place(*axis, shape.len())?;
            let size = i64::try_from(shape[axis]).ok()?;
            let bound = |input: usize| {
                let bound = *self.integers(input)?.get(i)?;
                Some(if bound < 0 { bound.saturating_add(size) } else { bound }.clamp(0, size))
            };
            shape[axis] = usize::try_from(bound(2)? - bound(1)?).ok()?;
        }
        Some(shape)
    }

    fn split(&self) -> Option<Vec<Vec<usize>>> {
        let shape = self.shape(0)?;
        let axis = place(self.number("axis").unwrap_or(0), shape.len())?;
        let parts = self.node.outputs.len();
        let part = |size: usize| {
            let mut shape = shape.to_vec();
            shape[axis] = size;
            shape
        };
        match self.integers(1) {
            Some(sizes) => sizes.iter().map(|&size| Some(part(usize::try_from(size).ok()?))).collect(),
            None => Some(vec![part(shape[axis].checked_div(parts)?); parts]),
        }
    }

    fn input(&self, i: usize) -> Option<&Known> {
        self.known.get(self.node.inputs.get(i)?.as_str())
    }

    fn shape(&self, i: usize) -> Option<&[usize]> {
        self.input(i)?.shape.as_deref()
    }

    /// The integers of a constant input.
    fn integers(&self, i: usize) -> Option<&[i64]> {
        let tensor = self.constants.get(self.node.inputs.get(i)?.as_str())?;
        (!tensor.integers.is_empty()).then_some(tensor.integers.as_slice())
    }

    fn number(&self, attribute: &str) -> Option<i64> {
        self.node.attributes.get(attribute)?.parse().ok()
    }

    /// An attribute that is a list, which `decode` writes as `[1, 0, 2]`.
    fn list(&self, attribute: &str) -> Option<Vec<usize>> {
        let text = self.node.attributes.get(attribute)?.strip_prefix('[')?.strip_suffix(']')?;
        text.split(", ").map(|number| number.parse().ok()).collect()
    }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

/// The dimension that `axis` means, which counts from the end if it is negative.
fn place(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&axis).then_some(usize::try_from(axis).ok()?)
}

/// The shape of an operator that goes element by element, by the rules of NumPy.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let dimension = |i| match (size(a, i), size(b, i)) {
        (1, size) | (size, 1) => Some(size),
        (a, b) => (a == b).then_some(a),
    };
    (0..rank).map(dimension).collect()
}

/// The shape of a product of matrices of two dimensions or more.
fn product(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let (Some((left, [rows, inner])), Some((right, [other, columns]))) = (a.split_last_chunk(), b.split_last_chunk())
    else {
        return None;
    };
    let mut shape = broadcast(left, right)?;
    shape.extend([*rows, *columns]);
    (inner == other).then_some(shape)
}
