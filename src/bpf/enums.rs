//! Enumerations of kernel modules, which are in the BTF of the module alone.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use libbpf_sys::{
    BTF_KIND_ENUM, btf, btf__find_by_name_kind, btf__free, btf__load_module_btf, btf__load_vmlinux_btf,
    btf__name_by_offset, btf__type_by_id, btf_enum,
};

/// Values and names of an enumeration of a module; none if the module is not loaded, or does not tell its types. It takes
/// all types of the kernel into memory for a moment.
pub fn module_enumeration(module: &str, enumeration: &str) -> Vec<(u32, String)> {
    let found = || {
        let (module, name) = (CString::new(module).ok()?, CString::new(enumeration).ok()?);
        // SAFETY: both names end in a zero; the base outlives what is split from it, as it is dropped later.
        let base = Types(NonNull::new(unsafe { btf__load_vmlinux_btf() })?);
        let types = Types(NonNull::new(unsafe { btf__load_module_btf(module.as_ptr(), base.0.as_ptr()) })?);
        types.members(&name)
    };
    found().unwrap_or_default()
}

struct Types(NonNull<btf>);

impl Types {
    fn members(&self, name: &CStr) -> Option<Vec<(u32, String)>> {
        let types = self.0.as_ptr();
        // SAFETY: `types` is valid, and so is a type whose number it gave. `vlen` members follow an enumeration; their
        // names, which end in a zero, are copied before anything is freed.
        unsafe {
            let id = u32::try_from(btf__find_by_name_kind(types, name.as_ptr(), BTF_KIND_ENUM)).ok()?;
            let found = NonNull::new(btf__type_by_id(types, id).cast_mut())?.as_ptr();
            let vlen = ((*found).info & 0xffff) as usize;
            let members = std::slice::from_raw_parts(found.add(1).cast::<btf_enum>(), vlen);
            let member = |member: &btf_enum| {
                let name = NonNull::new(btf__name_by_offset(types, member.name_off).cast_mut())?;
                Some((member.val as u32, CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()))
            };
            members.iter().map(member).collect()
        }
    }
}

impl Drop for Types {
    fn drop(&mut self) {
        // SAFETY: ours, and not used after this.
        unsafe { btf__free(self.0.as_ptr()) }
    }
}
