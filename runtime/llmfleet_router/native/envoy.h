// What every part of the module that Envoy calls needs of Envoy's dynamic-module ABI.
#ifndef LLMFLEET_ENVOY_H
#define LLMFLEET_ENVOY_H

#include <stddef.h>

struct text {
  const char *data;
  size_t length;
};

#define EXPORT __attribute__((visibility("default")))

#endif
