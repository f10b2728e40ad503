//! What can be called: functions and methods of up to eight arguments.
//!
//! Each trait is implemented for every function item, method and closure of a fitting shape. The implementations
//! differ in the tuple of arguments only, so the compiler finds the one that is meant, and an argument such as `3`
//! gets the type that the function asks for.

/// A function that can be called on another machine with the argument tuple `Args`.
///
/// Implemented for every `Fn(A, B, ..) -> R` of up to eight arguments. It must capture nothing, which is checked when
/// the caller is compiled: only the function's name travels, so what it needs has to be among the arguments.
pub trait RemoteFn<Args>: Copy + Send + 'static {
    /// What the function returns.
    type Output;

    /// Calls it here.
    fn run(&self, args: Args) -> Self::Output;
}

/// A method that can be called on an object of type `T` on another machine with the argument tuple `Args`.
///
/// Implemented for every `Fn(&T, A, ..) -> R` and `Fn(&mut T, A, ..) -> R` of up to seven further arguments;
/// `Access` ([`ByRef`] or [`ByMut`]) tells the two apart and is always inferred.
pub trait RemoteMethod<T, Args, Access>: Copy + Send + 'static {
    /// What the method returns.
    type Output;

    /// Calls it here.
    fn run(&self, object: &mut T, args: Args) -> Self::Output;
}

/// The [`RemoteMethod`] takes `&T`.
#[derive(Debug)]
pub enum ByRef {}

/// The [`RemoteMethod`] takes `&mut T`.
#[derive(Debug)]
pub enum ByMut {}

macro_rules! functions {
    ($($arg:ident)*) => {
        impl<F, R, $($arg,)*> RemoteFn<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn run(&self, ($($arg,)*): ($($arg,)*)) -> R {
                self($($arg),*)
            }
        }
    };
}

macro_rules! methods {
    ($($arg:ident)*) => {
        impl<F, T, R, $($arg,)*> RemoteMethod<T, ($($arg,)*), ByRef> for F
        where
            F: Fn(&T, $($arg),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn run(&self, object: &mut T, ($($arg,)*): ($($arg,)*)) -> R {
                self(object, $($arg),*)
            }
        }

        impl<F, T, R, $($arg,)*> RemoteMethod<T, ($($arg,)*), ByMut> for F
        where
            F: Fn(&mut T, $($arg),*) -> R + Copy + Send + 'static,
        {
            type Output = R;

            #[allow(non_snake_case)]
            fn run(&self, object: &mut T, ($($arg,)*): ($($arg,)*)) -> R {
                self(object, $($arg),*)
            }
        }
    };
}

functions!();
functions!(A);
functions!(A B);
functions!(A B C);
functions!(A B C D);
functions!(A B C D E);
functions!(A B C D E G);
functions!(A B C D E G H);
functions!(A B C D E G H I);

methods!();
methods!(A);
methods!(A B);
methods!(A B C);
methods!(A B C D);
methods!(A B C D E);
methods!(A B C D E G);
methods!(A B C D E G H);
