//! Plugins of ONNX Runtime, which need not be there.

use lfm2_host::provider;
use lfm2_host::runtime::Runtime;

/// Whether the plugin of the provider qnn is there; says why not otherwise.
pub fn qnn() -> bool {
    let runtime = Runtime::load(None).unwrap();
    let plugin = provider::named("qnn").unwrap().plugin().unwrap();
    match runtime.find_plugin(plugin, None) {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}
