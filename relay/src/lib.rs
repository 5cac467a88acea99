//! Reserved for the relay: a circuit relay and bootstrap node for those who can't be dialled. **There is nothing here yet**;
//! nodes reach each other directly today.
