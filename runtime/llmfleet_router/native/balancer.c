// The load-balancing policy of PrefixHash and Session for Envoy (the same dynamic module). Envoy's
// own Maglev with bounded load gives a retry back to the pod that has just refused, since that one
// is the idlest; this one asks which pods were tried.
#include <stdlib.h>
#include <string.h>

#include "balance.h"
#include "envoy.h"

// ── what Envoy offers ───────────────────────────────────────────────────────────────────────────
// Hosts have two places: among all (statistics, retries), and among the healthy (the choice).

typedef void *envoy_balancer;  // Envoy's object of one worker and cluster
typedef void *envoy_choice;    // of one attempt of a request

enum host_stat { kActiveRequests = 7 };

size_t envoy_dynamic_module_callback_lb_get_hosts_count(envoy_balancer, uint32_t priority);
size_t envoy_dynamic_module_callback_lb_get_healthy_hosts_count(envoy_balancer, uint32_t priority);
bool envoy_dynamic_module_callback_lb_get_host_address(envoy_balancer, uint32_t priority,
                                                       size_t index, struct text *address);
bool envoy_dynamic_module_callback_lb_get_healthy_host_address(envoy_balancer, uint32_t priority,
                                                               size_t index, struct text *address);
uint64_t envoy_dynamic_module_callback_lb_get_host_stat(envoy_balancer, uint32_t priority,
                                                        size_t index, enum host_stat);
bool envoy_dynamic_module_callback_lb_context_compute_hash_key(envoy_choice, uint64_t *key);
bool envoy_dynamic_module_callback_lb_context_should_select_another_host(envoy_balancer,
                                                                         envoy_choice,
                                                                         uint32_t priority,
                                                                         size_t index);

// ── one worker's balancer of one cluster ────────────────────────────────────────────────────────

struct balancer {
  struct pod *pods;  // the healthy ones, in Envoy's order
  size_t *places;    // of each, among all
  size_t count;
  uint64_t turn;  // the key of requests without one
};

static void forget(struct balancer *balancer) {
  free(balancer->pods);
  free(balancer->places);
  balancer->pods = NULL, balancer->places = NULL, balancer->count = 0;
}

static struct span span_of(struct text text) {
  return (struct span){(const uint8_t *)text.data, text.length};
}

// The place among all hosts; behind the last one, where Envoy knows nothing, if it is not there.
static size_t place_of(envoy_balancer envoy, struct text address) {
  size_t count = envoy_dynamic_module_callback_lb_get_hosts_count(envoy, 0), place = 0;
  struct text other;
  while (place < count &&
         !(envoy_dynamic_module_callback_lb_get_host_address(envoy, 0, place, &other) &&
           other.length == address.length && !memcmp(other.data, address.data, other.length)))
    place++;
  return place;
}

// Pods come and go far more rarely than requests, so their hashes and places are kept.
static void look(struct balancer *balancer, envoy_balancer envoy) {
  forget(balancer);
  size_t count = envoy_dynamic_module_callback_lb_get_healthy_hosts_count(envoy, 0);
  if (!count) return;
  balancer->pods = calloc(count, sizeof *balancer->pods);
  balancer->places = calloc(count, sizeof *balancer->places);
  if (!balancer->pods || !balancer->places) abort();  // as Envoy itself does
  for (size_t i = 0; i < count; i++) {
    struct text address = {0};
    envoy_dynamic_module_callback_lb_get_healthy_host_address(envoy, 0, i, &address);
    balancer->pods[i].hash = pod_hash(span_of(address));
    balancer->places[i] = place_of(envoy, address);
  }
  balancer->count = count;
}

// ── what Envoy calls ────────────────────────────────────────────────────────────────────────────

EXPORT const void *envoy_dynamic_module_on_lb_config_new(void *envoy, struct text name,
                                                         struct text text) {
  (void)envoy, (void)text;
  static const char kName[] = "affinity";
  bool is_known = name.length == sizeof kName - 1 && !memcmp(name.data, kName, name.length);
  return is_known ? kName : NULL;  // there is nothing to keep; NULL: Envoy refuses the configuration
}

EXPORT void envoy_dynamic_module_on_lb_config_destroy(const void *config) { (void)config; }

EXPORT const void *envoy_dynamic_module_on_lb_new(const void *config, envoy_balancer envoy) {
  (void)config;
  struct balancer *balancer = calloc(1, sizeof *balancer);
  if (!balancer) abort();
  look(balancer, envoy);
  return balancer;
}

EXPORT void envoy_dynamic_module_on_lb_destroy(const void *pointer) {
  struct balancer *balancer = (struct balancer *)pointer;
  forget(balancer);
  free(balancer);
}

// Also when a pod is ejected or taken back.
EXPORT void envoy_dynamic_module_on_lb_on_host_membership_update(envoy_balancer envoy,
                                                                 const void *balancer, size_t added,
                                                                 size_t removed) {
  (void)added, (void)removed;
  look((struct balancer *)balancer, envoy);
}

EXPORT bool envoy_dynamic_module_on_lb_choose_host(envoy_balancer envoy, const void *pointer,
                                                   envoy_choice choice, uint32_t *priority,
                                                   uint32_t *index) {
  struct balancer *balancer = (struct balancer *)pointer;
  if (!balancer->count) return false;
  uint64_t key;
  if (!choice || !envoy_dynamic_module_callback_lb_context_compute_hash_key(choice, &key))
    key = balancer->turn++;
  for (size_t i = 0; i < balancer->count; i++) {
    struct pod *pod = &balancer->pods[i];
    pod->is_tried = false;
    pod->active = envoy_dynamic_module_callback_lb_get_host_stat(envoy, 0, balancer->places[i],
                                                                 kActiveRequests);
  }
  size_t chosen;
  do {
    chosen = choose_pod(balancer->pods, balancer->count, key);
    if (!choice || balancer->pods[chosen].is_tried) break;
    balancer->pods[chosen].is_tried =
        envoy_dynamic_module_callback_lb_context_should_select_another_host(
            envoy, choice, 0, balancer->places[chosen]);
  } while (balancer->pods[chosen].is_tried);
  *priority = 0;
  *index = (uint32_t)chosen;
  return true;
}
