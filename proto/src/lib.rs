//! The wire: the generated types of `strongroom.v1`, and the codec that carries them.
//!
//! The `.proto` files beside this crate teach a caller; their comments are the documentation of every item here. No
//! message implements `Debug`, since messages carry values.

pub mod codec;

/// Messages, clients and servers of the package `strongroom.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("strongroom.v1");
}

/// The compiled `.proto` files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("strongroom.v1");
