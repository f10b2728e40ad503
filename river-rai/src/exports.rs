//! What a restricted server exposes, and to whom.

use river_core::code::code_ptr;
use river_core::naming::without_paths;
use serde::{Deserialize, Serialize};

use crate::data::RemoteSend;
use crate::function::{RemoteFn, RemoteMethod};
use crate::protocol::{Capability, Export};
use crate::signature::{Constructor, Method, Plain, signature};
use crate::trampoline::{CallFunction, CallMethod, CreateObject, ReadObject};

/// Functions, constructors and methods that a [restricted server](crate::RaiServer::restricted) makes known by name.
/// Clients of the same program may also call them as they are.
///
/// To know what is in the types of arguments and results, their `Deserialize` is run with made-up values, in the process that
/// exports a function and in the one that calls it by name, before the first call: a few times for a type with enums in it, once
/// for others. It may refuse them, or panic: nothing is printed, and what comes behind that in the type is not compared.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[must_use]
pub struct Exports {
    pub(crate) list: Vec<Export>,
}

impl Exports {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and a function.
    pub fn function<F, Args>(self, name: &str, function: F) -> Self
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.with(function_export(name, function))
    }

    /// The same, and a function whose result stays on the server as an object.
    pub fn constructor<F, Args>(self, name: &str, function: F) -> Self
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        self.with(constructor_export(name, function))
    }

    /// The same, and a method.
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

    /// The same, and objects of type `T` can be read and taken as a whole.
    pub fn readable<T: RemoteSend>(self) -> Self {
        let code = code_ptr::<ReadObject<T>, ()>(());
        let name = format!("read {}", without_paths(std::any::type_name::<T>()));
        self.with(Export { name, signature: signature::<Method<T, (), T>>(), code, capability: None })
    }

    /// The same for clients only that have shown the capability.
    pub fn only_with(mut self, capability: Capability) -> Self {
        for export in &mut self.list {
            export.capability.get_or_insert(capability);
        }
        self
    }

    /// Both.
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
