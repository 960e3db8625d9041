<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visitor;
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
 * POST pmp/v1/collect, and pmp/v1/notes, which is on no block list: the tracker's first-party endpoint.
 *
 * The body is JSON of any content type (a beacon says text/plain): {"events": [...]} or one event. The answer is that of
 * the mesh's batch call: a result for each event.
 *
 * No nonce and no cookie: pages are cached and the same for everybody. So a browser's claims about its visitor are ignored. IP
 * address and user agent are the request's; the user is the one whose login cookie is sent from a page of this site.
 */
final class CollectRoute implements Registerable
{
    public const SPACE = 'pmp/v1';

    private const PATHS = ['/collect', '/notes'];

    /** Browsers' limit for requests that outlive their page. */
    private const MAX_BYTES = 65_536;

    private const REQUESTS_PER_MINUTE = 300;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly PMP_Config $config,
        private readonly RateLimit $rates,
        private readonly Overdue $overdue,
        private readonly SharingChoice $sharing,
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
            return Refusal::of(403, 7, 'Only pages of this site may call this.');
        }
        $body = $request->get_body();
        if (strlen($body) > self::MAX_BYTES) {
            return Refusal::of(413, 8, 'A request has at most ' . self::MAX_BYTES . ' bytes.');
        }
        $now = $this->clock->now();
        $visitor = Visitor::current();
        if ($this->rates->count($visitor->address(), $now) > self::REQUESTS_PER_MINUTE) {
            return Refusal::too_many();
        }
        $user_id = OwnPages::user($request);
        $collected = CollectedEvents::of($body, $visitor, $user_id, $now);
        if ($collected === null) {
            return Refusal::of(400, 3, 'The body is {"events": [...]} with 1 to ' . CollectedEvents::MAX . ' events, or one event.');
        }
        if ($this->config->is_staff($user_id)) {
            return $this->answer(CollectedEvents::accept_all($collected->verdicts));
        }
        $is_overdue = $this->overdue->is_on();
        if (! $this->queue->add(...$collected->messages)) {
            return Refusal::too_many();
        }
        return $this->sharing->report($visitor, $now, $this->answer($collected->verdicts, $is_overdue));
    }

    /**
     * @param list<array{success: bool, event_id: string, violations: list<array{field: string, description: string}>}> $verdicts
     * @param bool $is_overdue Whether the browser should trigger a delivery.
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
