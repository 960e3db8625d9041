<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visit;
use PMP\Analytics\Clock;
use PMP\Analytics\Delivery\Overdue;
use PMP\Analytics\Hook;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Config;
use PMP_Event_Queue;
use WP_REST_Request;
use WP_REST_Response;

/**
 * POST pmp/v1/collect, and pmp/v1/notes, which no block list knows: the tracker's way out through the shop's own address.
 *
 * The body is JSON of any content type (a beacon says text/plain): {"events": [...]} or one event. The answer is that of
 * the mesh's batch call: a verdict for each event.
 *
 * No nonce, no cookie of ours: pages come from caches and are the same for everybody. So nothing a browser says of itself
 * is believed. The address and the user agent are the request's; the user is the one whose login cookie comes from a page
 * of this site.
 */
final class CollectRoute implements Registerable
{
    public const SPACE = 'pmp/v1';

    private const PATHS = ['/collect', '/notes'];

    /** Browsers let 64 KiB outlive their page. */
    private const MAX_BYTES = 65_536;

    private const REQUESTS_PER_MINUTE = 300;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_Config $config,
        private readonly RateLimit $rates,
        private readonly Overdue $overdue,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
    }

    public function add_route(): void
    {
        foreach (self::PATHS as $path) {
            register_rest_route(self::SPACE, $path, [
                'methods' => 'POST',
                'callback' => [$this, 'collect'],
                'permission_callback' => '__return_true',
            ]);
        }
    }

    public function collect(WP_REST_Request $request): WP_REST_Response
    {
        if (OwnPages::is_foreign($request)) {
            return Refusal::of(403, 7, 'Only pages of this site may tell what happens on them.');
        }
        $body = $request->get_body();
        if (strlen($body) > self::MAX_BYTES) {
            return Refusal::of(413, 8, 'A request has at most ' . self::MAX_BYTES . ' bytes.');
        }
        $now = $this->clock->now();
        $visit = Visit::current();
        if ($this->rates->count($visit->address(), $now) > self::REQUESTS_PER_MINUTE) {
            return Refusal::too_many();
        }
        $user_id = OwnPages::user($request);
        $collected = CollectedEvents::of($body, $visit, $user_id, $now);
        if ($collected === null) {
            return Refusal::of(400, 3, 'The body is {"events": [...]} with 1 to ' . CollectedEvents::MAX . ' events, or one event.');
        }
        if ($this->config->is_staff($user_id)) {
            return $this->answer(CollectedEvents::accept_all($collected->verdicts));
        }
        $is_overdue = $this->overdue->is_on();
        return $this->queue->add(...$collected->messages) ? $this->answer($collected->verdicts, $is_overdue) : Refusal::too_many();
    }

    /**
     * @param list<array{success: bool, event_id: string, violations: list<array{field: string, description: string}>}> $verdicts
     * @param bool $is_overdue The browser should have the outbox delivered.
     */
    private function answer(array $verdicts, bool $is_overdue = false): WP_REST_Response
    {
        $accepted = count(array_filter(array_column($verdicts, 'success')));
        return new WP_REST_Response([
            'success' => $accepted === count($verdicts),
            'accepted' => $accepted,
            'rejected' => count($verdicts) - $accepted,
            'results' => $verdicts,
        ] + ($is_overdue ? ['overdue' => true] : []), 202);
    }
}
