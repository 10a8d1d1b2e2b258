//! Runs LFM2 packages through ONNX Runtime: what `lfm2-export` wrote goes in, text comes out.
//!
//! The parts can be used by themselves. A [`package`] is opened without loading anything; a [`runtime`] is found and loaded once
//! per process; a [`session`] puts the graph onto a [`provider`]; a [`decoder`] runs tokens and keeps the state; the [`engine`]
//! goes from messages to answers with a tokenizer ([`text`]), a [`chat`] template, a [`sampler`] and [`stop`] rules.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use lfm2_host::cancel::Cancel;
//! use lfm2_host::chat::ChatTemplate;
//! use lfm2_host::decoder::OrtDecoder;
//! use lfm2_host::engine::{Conversation, Engine};
//! use lfm2_host::generation::{GenerationDefaults, Overrides};
//! use lfm2_host::package::Package;
//! use lfm2_host::provider::{self, SessionOptions};
//! use lfm2_host::runtime::Runtime;
//! use lfm2_host::session::Session;
//! use lfm2_host::text::Tokenizer;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let package = Package::open(Path::new("lfm2.onnx"))?;
//! let runtime = Runtime::load(None)?;
//! let session = Session::new(runtime, &package, provider::named("cpu")?, &SessionOptions::default())?;
//! let (tokenizer, template) = (Tokenizer::load(package.folder())?, ChatTemplate::load(package.folder())?);
//! let mut engine = Engine::new(OrtDecoder::new(session, None)?, tokenizer, template);
//!
//! let generation = GenerationDefaults::load(package.folder())?.resolve(&Overrides::default())?;
//! let mut conversation = Conversation::new(None);
//! let question = "What is C. elegans?";
//! let answer = conversation.say(question, &mut engine, &generation, &Cancel::new(), &mut |text| print!("{text}"))?;
//! println!("\n{:?} after {} tokens", answer.finish_reason, answer.tokens.len());
//! # Ok(())
//! # }
//! ```
//!
//! The feature `cli`, which is on by default, is the program `lfm2-host` with its command line, line editor and handling of
//! Ctrl-C. Apps that link the library do without: `default-features = false`.

pub mod calibrate;
pub mod cancel;
pub mod chat;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compiled;
pub mod decoder;
pub mod documents;
pub mod engine;
pub mod evaluate;
pub mod generation;
pub mod measure;
pub mod package;
pub mod platform;
pub mod provider;
pub mod runtime;
pub mod sampler;
pub mod session;
mod state;
pub mod stop;
pub mod text;
