<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Api\Webhook;
use PMP\Analytics\Clock;
use PMP\Analytics\Privacy\Person;
use PMP\Analytics\Privacy\PersonalData;
use PMP\Analytics\Privacy\SiteErasers;
use PMP\Analytics\Reports\Reports;
use PMP_Config;
use WP_REST_Request;
use WP_REST_Response;
use WP_User;

/**
 * POST pmp/v1/erasures: the mesh has erased a person, and this site erases its own data about them. Nothing here calls the mesh.
 *
 * If the time is not sufficient, the answer is 503; the mesh calls again, and the erasure continues.
 */
final class ErasuresRoute extends SignedRoute
{
    public const PATH = '/erasures';

    /** The mesh's timeout is ten. */
    private const SECONDS = 8.0;

    private const DONE = 'pmp_erasure_';

    public function __construct(
        PMP_Config $config,
        private readonly PersonalData $data,
        private readonly SiteErasers $erasers,
        Clock $clock,
    ) {
        parent::__construct($config, $clock);
    }

    public function answer(WP_REST_Request $request): WP_REST_Response
    {
        $done = self::DONE . hash('sha256', Webhook::of($request)->id);
        if (get_transient($done) !== false) {
            return new WP_REST_Response(['success' => true, 'duplicate' => true]);
        }
        $call = Webhook::of($request)->content();
        if ($call === null || $call['type'] !== 'person.erased') {
            return Refusal::of(400, 3, 'The body is {"type": "person.erased", "data": {...}}.');
        }
        $until = $this->clock->now() + self::SECONDS;
        $person = $this->person($call['data']);
        $this->data->forget($person);
        Reports::forget();
        if ($this->config->erases_with_the_mesh()) {
            foreach ($person->emails as $email) {
                if (! $this->erasers->run($email, $until)) {
                    return Refusal::of(503, 14, 'Not everything is erased yet.');
                }
            }
        }
        set_transient($done, '1', DAY_IN_SECONDS);
        return new WP_REST_Response(['success' => true, 'duplicate' => false]);
    }

    /**
     * @param array<mixed> $data
     */
    private function person(array $data): Person
    {
        $texts = static fn (string $field): array => array_values(array_filter((array) ($data[$field] ?? []), is_string(...)));
        $user_ids = array_values(array_filter(array_map(intval(...), array_filter($texts('wordpress_user_ids'), ctype_digit(...)))));
        $emails = array_values(array_filter($texts('emails'), is_email(...)));
        foreach ($user_ids as $user_id) {
            $user = get_userdata($user_id);
            if ($user instanceof WP_User && $user->user_email !== '') {
                $emails[] = $user->user_email;
            }
        }
        $person = new Person($emails, $user_ids);
        array_map($person->add_session(...), [...$texts('session_ids'), ...$texts('anonymous_ids')]);
        return $person;
    }
}
