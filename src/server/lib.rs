//! The edge: mTLS, identity and the gRPC services.
