//! What a restricted server exposes, and to which clients.

use river_core::code::code_ptr;
use river_core::naming::without_paths;
use serde::{Deserialize, Serialize};

use crate::data::RemoteSend;
use crate::function::{RemoteFn, RemoteMethod};
use crate::protocol::{Capability, Export};
use crate::signature::{Constructor, Method, Plain, signature};
use crate::trampoline::{CallFunction, CallMethod, CreateObject, ReadObject};

/// Functions, constructors and methods that a [restricted server](crate::RaiServer::restricted) exports by name.
/// Clients of the same program may also call them directly.
///
/// To learn the structure of argument and result types, their `Deserialize` is run with made-up values before the first
/// call, both in the process that exports a function and in one that calls it by name: a few times for a type that
/// contains enums, once for others. It may refuse the values, or panic: nothing is printed, and the rest of that type
/// is not compared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[must_use]
pub struct Exports {
    pub(crate) list: Vec<Export>,
}

impl Exports {
    /// Returns an empty set of exports.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function.
    pub fn function<F, Args>(self, name: &str, function: F) -> Self
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.with(function_export(name, function))
    }

    /// Adds a function whose result stays on the server as an object.
    pub fn constructor<F, Args>(self, name: &str, function: F) -> Self
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        self.with(constructor_export(name, function))
    }

    /// Adds a method.
    pub fn method<F, T, Args, Access>(self, name: &str, function: F) -> Self
    where
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        T: Send + 'static,
        Args: RemoteSend,
        Access: 'static,
    {
        let code = code_ptr::<CallMethod<T, Args, Access>, F>(function);
        self.with(Export {
            name: name.into(),
            signature: signature::<Method<T, Args, F::Output>>(),
            code,
            capability: None,
        })
    }

    /// Allows objects of type `T` to be read and taken as a whole.
    pub fn readable<T: RemoteSend>(self) -> Self {
        let code = code_ptr::<ReadObject<T>, ()>(());
        let name = format!("read {}", without_paths(std::any::type_name::<T>()));
        self.with(Export { name, signature: signature::<Method<T, (), T>>(), code, capability: None })
    }

    /// Restricts these exports to clients that have presented the capability.
    pub fn only_with(mut self, capability: Capability) -> Self {
        for export in &mut self.list {
            export.capability.get_or_insert(capability);
        }
        self
    }

    /// Combines two sets of exports.
    pub fn and(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self
    }

    fn with(mut self, export: Export) -> Self {
        self.list.push(export);
        self
    }
}

pub(crate) fn function_export<F, Args>(name: &str, function: F) -> Export
where
    F: RemoteFn<Args>,
    F::Output: RemoteSend,
    Args: RemoteSend,
{
    let code = code_ptr::<CallFunction<Args>, F>(function);
    Export { name: name.into(), signature: signature::<Plain<Args, F::Output>>(), code, capability: None }
}

pub(crate) fn constructor_export<F, Args>(name: &str, function: F) -> Export
where
    F: RemoteFn<Args>,
    F::Output: Send + 'static,
    Args: RemoteSend,
{
    let code = code_ptr::<CreateObject<Args>, F>(function);
    Export {
        name: name.into(),
        signature: signature::<Constructor<Args, F::Output>>(),
        code,
        capability: None,
    }
}
