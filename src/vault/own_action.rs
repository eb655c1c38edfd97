//! What leaves say that nobody asks policy for: the vault itself does it, or whoever has the root key.

macro_rules! own_actions {
    ($($(#[$doc:meta])* $action:ident = $name:literal),+ $(,)?) => {
        /// What the vault does by itself.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum OwnAction {
            $($(#[$doc])* $action,)+
        }

        impl OwnAction {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$action),+];

            /// The name in the ledger.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$action => $name,)+
                }
            }
        }
    };
}

own_actions! {
    /// The first leaf of the vault's own log.
    CreateVault = "create_vault",
    /// The root key puts policies or officers in force.
    BreakGlass = "break_glass",
    /// The keystore moves to another root key.
    MoveRootKey = "move_root_key",
    /// An older copy of the data goes on, with the rules that it has: the first leaf of an incarnation.
    Restored = "restored",
    /// A tenant's own key is away, and its keys with it.
    LockTenant = "lock_tenant",
    /// It is there again.
    UnlockTenant = "unlock_tenant",
    /// The root key is away.
    Seal = "seal",
    /// It is there again.
    Unseal = "unseal",
    /// The clock is not believed any more.
    ClockJumped = "clock_jumped",
}

impl OwnAction {
    /// Whether it changes what is in force, as [`strongroom_access::Action::is_change`].
    pub fn is_change(self) -> bool {
        // Each by its name, so that nobody forgets a new one.
        match self {
            Self::CreateVault
            | Self::BreakGlass
            | Self::MoveRootKey
            | Self::Restored
            | Self::LockTenant
            | Self::UnlockTenant
            | Self::ClockJumped => true,
            // The keys are in memory or are not: they stay the same.
            Self::Seal | Self::Unseal => false,
        }
    }
}
