<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visit;
use PMP\Analytics\Clock;
use PMP\Analytics\Delivery\Overdue;
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

    private const RETRY_AFTER_SECONDS = 60;

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
        add_action('rest_api_init', [$this, 'add_route']);
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
        if ($this->is_foreign($request)) {
            return $this->error(403, 7, 'Only pages of this site may tell what happens on them.');
        }
        $body = $request->get_body();
        if (strlen($body) > self::MAX_BYTES) {
            return $this->error(413, 8, 'A request has at most ' . self::MAX_BYTES . ' bytes.');
        }
        $now = $this->clock->now();
        $visit = Visit::current();
        if ($this->rates->count($visit->address(), $now) > self::REQUESTS_PER_MINUTE) {
            return $this->too_many();
        }
        $user_id = $this->user($request);
        $collected = CollectedEvents::of($body, $visit, $user_id, $now);
        if ($collected === null) {
            return $this->error(400, 3, 'The body is {"events": [...]} with 1 to ' . CollectedEvents::MAX . ' events, or one event.');
        }
        if ($this->config->is_staff($user_id)) {
            return $this->answer(CollectedEvents::accept_all($collected->verdicts));
        }
        $is_overdue = $this->overdue->is_on();
        return $this->queue->add(...$collected->messages) ? $this->answer($collected->verdicts, $is_overdue) : $this->too_many();
    }

    /**
     * Browsers name the page's site with every POST. Who names none is no browser of today, and is told nothing anyway.
     */
    private function is_foreign(WP_REST_Request $request): bool
    {
        $origin = (string) $request->get_header('origin');
        return $origin !== '' && ! $this->is_own($origin);
    }

    /**
     * The person who is logged in: only when the browser vouches that one of our own pages asks, as another site's page could
     * send the same cookies.
     */
    private function user(WP_REST_Request $request): int
    {
        $is_own = $this->is_own((string) $request->get_header('origin')) || $request->get_header('sec_fetch_site') === 'same-origin';
        return $is_own ? (int) wp_validate_auth_cookie('', 'logged_in') : 0;
    }

    private function is_own(string $origin): bool
    {
        $host = wp_parse_url($origin, PHP_URL_HOST);
        /**
         * Hosts of this site's own pages.
         *
         * @param list<string> $hosts
         */
        $own = apply_filters('pmp_analytics_own_hosts', [
            wp_parse_url(home_url(), PHP_URL_HOST),
            wp_parse_url(site_url(), PHP_URL_HOST),
        ]);
        return is_string($host) && in_array($host, $own, true);
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

    private function too_many(): WP_REST_Response
    {
        $response = $this->error(429, 8, 'Too many requests.');
        $response->header('Retry-After', (string) self::RETRY_AFTER_SECONDS);
        return $response;
    }

    /**
     * The one shape of the mesh's errors.
     */
    private function error(int $status, int $code, string $message): WP_REST_Response
    {
        return new WP_REST_Response(['code' => $code, 'message' => $message, 'details' => []], $status);
    }
}
