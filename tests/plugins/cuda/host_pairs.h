// The host's like of plugins/common/device.cuh: pairs that are moved if they exist.
#pragma once

struct HostPairs {
  template <class P>
  static P load_if(bool exists, const P* from, P otherwise) {
    return exists ? *from : otherwise;
  }
  template <class P>
  static void store_if(bool exists, P pair, P* to) {
    if (exists) *to = pair;
  }
};
