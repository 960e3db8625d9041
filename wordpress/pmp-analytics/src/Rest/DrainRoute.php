<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Capture\Visitor;
use PMP\Analytics\Clock;
use PMP\Analytics\Delivery\Drainer;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use WP_REST_Response;

/**
 * POST pmp/v1/drain: delivers overdue messages on sites without a working WP-Cron. The tracker calls it in the background when the
 * answer to its events says that messages are overdue.
 *
 * It is public: it reveals nothing, and the lease and the pause limit it to one delivery at a time.
 */
final class DrainRoute implements Registerable
{
    private const SECONDS = 5.0;

    private const REQUESTS_PER_MINUTE = 120;

    public function __construct(
        private readonly Drainer $drainer,
        private readonly RateLimit $rates,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
    }

    public function add_route(): void
    {
        register_rest_route(CollectRoute::SPACE, '/drain', [
            'methods' => 'POST',
            'callback' => [$this, 'drain'],
            'permission_callback' => '__return_true',
        ]);
    }

    public function drain(): WP_REST_Response
    {
        if ($this->rates->count('drain ' . Visitor::current()->address(), $this->clock->now()) <= self::REQUESTS_PER_MINUTE) {
            $this->drainer->drain(self::SECONDS);
        }
        return new WP_REST_Response(null, 204);
    }
}
