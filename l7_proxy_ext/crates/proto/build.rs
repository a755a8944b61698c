//! Generates the messages from the contract, without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    const ROOT: &str = "../../..";
    const CONTRACT: &str = "sidegate_api/policy/v1/policy.proto";
    println!("cargo:rerun-if-changed={ROOT}/{CONTRACT}");
    let descriptors = protox::compile([format!("{ROOT}/{CONTRACT}")], [ROOT])?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(std::env::var_os("CARGO_FEATURE_CLIENT").is_some())
        .compile_fds(descriptors)?;
    Ok(())
}
