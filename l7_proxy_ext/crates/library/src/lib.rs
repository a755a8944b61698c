//! `libsidegate.so`: the symbols that Envoy looks up, over `sidegate_module`.

sidegate_abi::export!(sidegate_module::Sidegate);
