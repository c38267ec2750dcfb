#include "balance.h"

enum { kAddress = 3, kPair = 4 };  // seeds, beside those of keys

uint64_t pod_hash(struct span address) { return key_hash(address, kAddress); }

static uint64_t rank(uint64_t key, uint64_t pod) {
  const uint64_t pair[2] = {key, pod};
  return key_hash((struct span){(const uint8_t *)pair, sizeof pair}, kPair);
}

size_t choose_pod(const struct pod *pods, size_t count, uint64_t key) {
  uint64_t fresh = 0, active = 1;  // this request as well
  for (size_t i = 0; i < count; i++) {
    fresh += !pods[i].is_tried;
    if (!pods[i].is_tried) active += pods[i].active;
  }
  bool is_any = fresh == 0;
  if (is_any) {
    fresh = count;
    for (size_t i = 0; i < count; i++) active += pods[i].active;
  }
  // At least one pod has less: together they have less than `active`. Tried ones do not count, or
  // the idleness of one that refuses would make all others look busy.
  uint64_t limit = (active * kBoundPercent + 100 * fresh - 1) / (100 * fresh);
  uint64_t highest = 0;
  size_t chosen = 0;
  for (size_t i = 0; i < count; i++) {
    if ((pods[i].is_tried && !is_any) || pods[i].active >= limit) continue;
    uint64_t height = rank(key, pods[i].hash);
    if (height >= highest) highest = height, chosen = i;
  }
  return chosen;
}
