//! The examples of picoprof stand in folders beside this file, one each.
