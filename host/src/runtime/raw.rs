//! What only the C interface of ONNX Runtime tells. Everything here copies at once what it is given, so that no pointer leaves this
//! file.
#![allow(unsafe_code, reason = "`ort` wraps none of these functions")]

use std::ffi::{CStr, c_char};
use std::ptr;
use std::slice;

use ort::AsPointer;
use ort::device::Device;
use ort::session::Session;
use ort::sys::OrtStatusPtr;

/// A node of a graph, and who runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// ONNX Runtime's name of the provider.
    pub(crate) provider: String,
    /// The node's name.
    pub(crate) name: String,
    /// Domain of its operator, empty for that of ONNX.
    pub(crate) domain: String,
    /// Its operator.
    pub(crate) operator: String,
}

/// The providers that the loaded library was built with.
pub(super) fn built_in() -> ort::Result<Vec<String>> {
    let api = ort::api();
    let (mut names, mut count) = (ptr::null_mut(), 0);
    // SAFETY: both pointers are valid for writing.
    checked(unsafe { (api.GetAvailableProviders)(&mut names, &mut count) })?;
    let length = usize::try_from(count).unwrap_or_default();
    // SAFETY: the function has left `count` strings there, which end with zero bytes and stay until they are released below.
    let copied = (0..length).map(|index| unsafe { text(*names.add(index)) }).collect();
    // SAFETY: what is released is what was returned, and nothing refers to it any more.
    checked(unsafe { (api.ReleaseAvailableProviders)(names, count) })?;
    Ok(copied)
}

/// Version of the library of the provider that `device` belongs to, if it tells.
pub(super) fn provider_version(device: &Device<'_>) -> Option<String> {
    let api = ort::api();
    // SAFETY: the device is alive, and what is returned belongs to it.
    let pairs = unsafe { (api.EpDevice_EpMetadata)(device.ptr()) };
    if pairs.is_null() {
        return None;
    }
    // SAFETY: the pairs are alive, and the key ends with a zero byte.
    let version = unsafe { (api.GetKeyValue)(pairs, c"version".as_ptr()) };
    // SAFETY: the string belongs to the pairs and ends with a zero byte, or is null.
    Some(unsafe { text(version) }).filter(|version| !version.is_empty())
}

/// Every node of the graph of `session` as it was when the providers had taken their parts. The session has to be created with the
/// setting `session.record_ep_graph_assignment_info`.
pub(crate) fn assignment(session: &Session) -> ort::Result<Vec<Assigned>> {
    let api = ort::api();
    let (mut parts, mut count) = (ptr::null(), 0);
    // SAFETY: the session is alive, and both pointers are valid for writing.
    checked(unsafe { (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), &mut parts, &mut count) })?;
    let mut assigned = Vec::new();
    // SAFETY: the function has left `count` pointers there, which the session owns and this function borrows.
    for &part in unsafe { array(parts, count) } {
        let (mut provider, mut nodes, mut count) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `part` belongs to the session, which is alive, and the pointers are valid for writing.
        checked(unsafe { (api.EpAssignedSubgraph_GetEpName)(part, &mut provider) })?;
        // SAFETY: as above.
        checked(unsafe { (api.EpAssignedSubgraph_GetNodes)(part, &mut nodes, &mut count) })?;
        // SAFETY: the name belongs to the session and ends with a zero byte.
        let provider = unsafe { text(provider) };
        // SAFETY: the function has left `count` pointers there, which the session owns.
        for &node in unsafe { array(nodes, count) } {
            let (mut name, mut domain, mut operator) = (ptr::null(), ptr::null(), ptr::null());
            // SAFETY: `node` belongs to the session, which is alive, and the pointers are valid for writing.
            checked(unsafe { (api.EpAssignedNode_GetName)(node, &mut name) })?;
            // SAFETY: as above.
            checked(unsafe { (api.EpAssignedNode_GetDomain)(node, &mut domain) })?;
            // SAFETY: as above.
            checked(unsafe { (api.EpAssignedNode_GetOperatorType)(node, &mut operator) })?;
            // SAFETY: the strings belong to the session and end with zero bytes.
            let [name, domain, operator] = [name, domain, operator].map(|it| unsafe { text(it) });
            assigned.push(Assigned { provider: provider.clone(), name, domain, operator });
        }
    }
    Ok(assigned)
}

/// What a function of ONNX Runtime returned, as a result.
fn checked(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: the status comes from a function of ONNX Runtime and is used once.
    unsafe { ort::Error::result_from_status(status) }
}

/// The array at `start`, which may be null if it is empty.
///
/// # Safety
/// `start` must point to `length` elements that stay valid as long as the result is used.
unsafe fn array<'a, T>(start: *const T, length: usize) -> &'a [T] {
    if start.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(start, length) }
}

/// A copy of the string at `start`; empty if that is null.
///
/// # Safety
/// `start` must be null or point to a string that ends with a zero byte.
unsafe fn text(start: *const c_char) -> String {
    if start.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}
