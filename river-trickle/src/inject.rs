//! Injection (paper, section 2.1): data, functions and objects are put on VMs under a name, by which functions that run
//! there can find them. They are gone when the program ends.
//!
//! Functions need not be injected to be called: the program itself is sent. Injecting a function gives it a name, for
//! callers that do not link to it.

use river_rai::{Object, Packed, RemoteFn, RemoteSend};

use crate::error::TrickleError;
use crate::lot::Injection;
use crate::vm::Vm;
use crate::vms::Vms;

impl<'a> Vm<'a> {
    /// Puts a copy of a value on the VM. The handle reads and changes it; functions that run there access it in place,
    /// by [`with_named`](river_rai::current::with_named).
    ///
    /// ```no_run
    /// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
    /// let names = vms[0].inject("names", vec!["Alex".to_string(), "Sami".to_string()])?;
    /// names.set_item(0, "*NONE*".into())?;
    /// assert_eq!(names.get()?, ["*NONE*", "Sami"]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`TrickleError::Call`].
    ///
    /// # Blocking
    /// Until the value is on the VM.
    pub fn inject<T: RemoteSend>(&self, name: &str, value: T) -> Result<Object<'a, T>, TrickleError> {
        self.rai().put(name, value).map_err(|error| self.error(error))
    }

    /// Makes an object on the VM, under a name. Unlike an object made by [`create`](Self::create), it outlives its
    /// handle.
    ///
    /// # Errors
    /// [`TrickleError::Call`].
    ///
    /// # Blocking
    /// Until the object is on the VM.
    pub fn inject_object<F, Args>(
        &self,
        name: &str,
        constructor: F,
        args: Args,
    ) -> Result<Object<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        let put = Packed::new(args).and_then(|args| self.rai().put_with(name, constructor, &args));
        put.map_err(|error| self.error(error))
    }

    /// Gives a function a name on the VM, for [`call_named`](Self::call_named).
    ///
    /// # Errors
    /// [`TrickleError::Call`].
    ///
    /// # Blocking
    /// Until the VM knows the name.
    pub fn inject_fn<F, Args>(&self, name: &str, function: F) -> Result<(), TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.rai().export(name, function).map_err(|error| self.error(error))
    }

    /// Calls a function by the name under which it was injected. The types must be those of the function.
    ///
    /// # Errors
    /// [`TrickleError::Call`]; if the types do not match, it shows those of the function.
    ///
    /// # Blocking
    /// Until the function has returned or the VM is gone.
    pub fn call_named<R, Args>(&self, name: &str, args: Args) -> Result<R, TrickleError>
    where
        R: RemoteSend,
        Args: RemoteSend,
    {
        self.rai().call_named(name, args).map_err(|error| self.error(error))
    }

    /// Returns a handle to what was injected under that name.
    #[must_use]
    pub fn named<T: Send + 'static>(&self, name: &str) -> Object<'a, T> {
        self.rai().named(name)
    }
}

impl<'a> Vms<'a> {
    /// Puts a copy of a value on every VM, encoded once; returns handles in the order of the VMs. VMs that
    /// [join](Self::grow) later get a copy too, so the encoded value is kept until its name is used again.
    ///
    /// # Errors
    /// As [`Vm::inject`].
    ///
    /// # Blocking
    /// Until the value is on all VMs.
    pub fn inject<T: RemoteSend>(&self, name: &str, value: T) -> Result<Vec<Object<'a, T>>, TrickleError> {
        let value = self.packed((value,))?;
        self.put(Injection::data(name, move |rai, name| {
            rai.put_with_async(name, |value: T| value, &value).map(|(_, put)| put)
        }))?;
        Ok(self.iter().map(|vm| vm.named(name)).collect())
    }

    /// Makes an object on every VM, under a name, and on those that [join](Self::grow) later.
    ///
    /// # Errors
    /// As [`Vm::inject_object`].
    ///
    /// # Blocking
    /// Until all objects exist; they are made concurrently.
    pub fn inject_object<F, Args>(
        &self,
        name: &str,
        constructor: F,
        args: Args,
    ) -> Result<Vec<Object<'a, F::Output>>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        let args = self.packed(args)?;
        self.put(Injection::data(name, move |rai, name| {
            rai.put_with_async(name, constructor, &args).map(|(_, put)| put)
        }))?;
        Ok(self.iter().map(|vm| vm.named(name)).collect())
    }

    /// Gives a function a name on every VM, and on those that [join](Self::grow) later.
    ///
    /// # Errors
    /// As [`Vm::inject_fn`].
    ///
    /// # Blocking
    /// Until all VMs know the name.
    pub fn inject_fn<F, Args>(&self, name: &str, function: F) -> Result<(), TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.put(Injection::function(name, move |rai, name| rai.export_async(name, function)))
    }

    fn packed<Args: RemoteSend>(&self, args: Args) -> Result<Packed<Args>, TrickleError> {
        Packed::new(args).map_err(|error| match self.first() {
            Some(vm) => vm.error(error),
            None => TrickleError::Call { vm: "none".into(), error },
        })
    }
}
